"""An agent of the original InfraSight: a real gRPC client that says its messages."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import grpclib.client
from grpclib.const import Cardinality

from infrasight.wire._generated.others import pb
from infrasight.wire.framing import Encoder, read_message

LABELS = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.container.name": "nginx", "app": "web"}
NOW_MS = int(time.time() * 1000)
PAYLOADS: dict[str, dict[str, Any]] = {
    "execve": {"snoop": pb.SnooperEvent(filename="/bin/ls", return_code=0)},
    "open": {"snoop": pb.SnooperEvent(filename="/etc/passwd", return_code=-13)},
    "chmod": {"snoop": pb.SnooperEvent(filename="/tmp/x", return_code=0)},
    "connect": {
        "network": pb.NetworkEvent(
            **{"return_code": -115, "saddrv4": "10.0.0.5", "daddrv4": "93.184.216.34", "sport": "40000", "dport": "443", "sa_family": "AF_INET"},
            resolved_domain="example.org",
        )
    },
    "accept": {"network": pb.NetworkEvent(return_code=9, saddrv6="fe80::1", daddrv6="2001:DB8::2", sport="80", dport="50000", sa_family="AF_INET6")},
    "ptrace": {"ptrace": pb.PtraceEvent(request=16, target_pid=77, addr=1, data=2**64 - 1, return_code=0, request_name="PTRACE_ATTACH")},
    "mmap": {"mmap": pb.MmapEvent(addr=4096, len=8192, prot=5, flags=34, fd=2**64 - 1, off=4096, return_code=140_000_000_000_000)},
    "mount": {"mount": pb.MountEvent(dev_name="/dev/sdb", dir_name="/mnt", type="ext4", flags=2**40 + 1, return_code=0)},
    "umount": {"mount": pb.MountEvent(dir_name="/mnt", flags=2, return_code=-16)},
    "resource": {
        "resource": pb.ResourceEvent(
            **{"cpu_ns": 5e6, "user_faults": 7, "kernel_faults": 1, "vm_mmap_bytes": 4096.0, "vm_munmap_bytes": 1.0, "vm_brk_grow_bytes": 2.0},
            **{"vm_brk_shrink_bytes": 3.0, "bytes_written": 2.0**53, "bytes_read": 5.0, "is_active": 1},
        )
    },
    "syscall_freq": {"sys_freq": pb.SysFreqEvent(syscall_id=257, count=12)},
    "syscall_freq_agg": {"syscall_freq_agg": pb.SyscallFreqAgg(vector_json='{"0": 12, "1": 4, "257": 9}')},
}
"""event_type -> its payload."""


def event(event_type: str = "open", **more: Any) -> pb.EbpfEvent:
    """An event of a container on the node `old1`."""
    told: dict[str, Any] = {
        **{"pid": 4711, "uid": 1000, "gid": 100, "ppid": 1, "comm": "cat", "user": "ann", "node_name": "old1", "event_type": event_type},
        **{"cgroup_id": 99, "cgroup_name": "cri-abc", "user_pid": 7, "user_ppid": 1, "timestamp_ns": 10**12, "timestamp_ns_exit": 10**12 + 2_500_000},
        **{"latency_ns": 2_500_000, "timestamp_unix_ms": NOW_MS, "container_id": "abc123", "container_image": "nginx:1.27"},
        "container_labels_json": LABELS,
        **PAYLOADS.get(event_type, {}),
    }
    return pb.EbpfEvent(**told | more)


class Agent:
    """One connection to the server."""

    def __init__(self, port: int, **headers: str) -> None:
        self._headers = headers
        self._channel = grpclib.client.Channel("127.0.0.1", port, codec=Encoder())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()

    def stream(self) -> grpclib.client.Stream[Any, Any]:
        """A SendEvents that is not begun."""
        return self._channel.request("/pb.EventCollector/SendEvents", Cardinality.STREAM_UNARY, pb.EbpfEvent, pb.CollectorAck, metadata=self._headers)

    async def send_events(self, *events: pb.EbpfEvent | bytes) -> pb.CollectorAck:
        """All of them on one stream."""
        async with self.stream() as stream:
            await stream.send_request()
            for each in events:
                await stream.send_message(each)
            await stream.end()
            return await ack(stream)

    async def send_batch(self, batch: pb.Batch | bytes) -> pb.CollectorAck:
        """One call."""
        route = "/pb.EventCollector/SendBatch"
        async with self._channel.request(route, Cardinality.UNARY_UNARY, pb.Batch, pb.CollectorAck, metadata=self._headers) as stream:
            await stream.send_message(batch, end=True)
            return await ack(stream)


async def ack(stream: grpclib.client.Stream[Any, Any]) -> pb.CollectorAck:
    """The answer of a call; GRPCError when it is an error."""
    await stream.recv_initial_metadata()
    data = await read_message(stream._stream, 1 << 20)
    if data is None:
        await stream.recv_trailing_metadata()
        raise AssertionError("neither answer nor error")
    return pb.CollectorAck.parse(data)
