"""How processes talk: gRPC, its messages, and batches as bytes. The only room importing grpclib and betterproto2.

Belongs here: the messages made from `proto/` (`_generated`, never edited), the codec of batches, servers' and clients' connections, and
making both safe against whatever comes from the other side. Does not belong here: what a call does, which is server/ and client.py.

    codec.py, flat.py   a batch as an Arrow IPC stream, and decoding one that a stranger made
    events.py           rows of a batch as typed messages
    liveness.py         whether the other side is still there
    framing.py          gRPC messages from a stranger, bounded
    limits.py           what one client may cost a server
    strict.py           protobuf from a stranger
    service.py          a gRPC service's base class and the stream its methods get
    server.py           a listening gRPC server that survives anything and drains before it closes
    channel.py          a client's connection and calls
    shipment.py         of these the one that nodes make
    original.py         the contract of the original InfraSight's agents
    local.py            calls to services of others, on unix sockets of this machine
    containerd.py       the messages of one of them
    cri.py              those of runtimes that Kubernetes has its pods run by
    tls.py              TLS under both: contexts from files that may change, handshakes that say what is wrong
    access.py           roles, and what a certificate says of who calls
    complaints.py       log lines about strangers, not too many
    status.py           our exceptions as gRPC statuses and back
    generate.py         makes `_generated` (`make proto`)
"""

from typing import TYPE_CHECKING, Any

from infrasight.wire._generated.collector.infrasight.v1 import (
    Ack,
    AckVerdict,
    Attention,
    Batch,
    CollectorBase,
    Hello,
    ShipRequest,
    ShipResponse,
    Welcome,
)

if TYPE_CHECKING:
    from infrasight.wire._generated.query.infrasight.v1 import (
        EdgeStatus,
        Event,
        EventsBase,
        KindStatus,
        NodeStatus,
        QueryRequest,
        QueryResponse,
        StatusRequest,
        StatusResponse,
        SubscribeRequest,
        SubscribeResponse,
    )

__all__ = [
    "Ack",
    "AckVerdict",
    "Attention",
    "Batch",
    "CollectorBase",
    "EdgeStatus",
    "Event",
    "EventsBase",
    "Hello",
    "KindStatus",
    "NodeStatus",
    "QueryRequest",
    "QueryResponse",
    "ShipRequest",
    "ShipResponse",
    "StatusRequest",
    "StatusResponse",
    "SubscribeRequest",
    "SubscribeResponse",
    "Welcome",
]


def __getattr__(name: str) -> Any:
    """The messages of questions, with one for each kind of event, when they are first asked for: a node never does."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from infrasight.wire._generated.query.infrasight import v1

    return getattr(v1, name)
