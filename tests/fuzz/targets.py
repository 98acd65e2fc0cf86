"""What is fuzzed: each target takes bytes, lets out the errors that its reader promises, and checks what came of what was taken."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from infrasight.errors import InvalidBatch, InvalidRequest, QueryRefused, SettingsError
from infrasight.node.policy import file as policy
from infrasight.runtimes import docker, kubernetes, spec
from infrasight.runtimes.facts import facts_of
from infrasight.runtimes.loose import parsed, text, time_ns
from infrasight.schema import KINDS, arrow_schema
from infrasight.store import batches, joining
from infrasight.store.session import EngineError
from infrasight.wire import Hello, QueryRequest, ShipRequest, StatusRequest, SubscribeRequest, codec
from infrasight.wire.containerd import Container, Envelope, GotImage, Namespaces
from infrasight.wire.limits import Limits
from infrasight.wire.server import _Handler, _Protocol, _Server
from infrasight.wire.service import Service
from infrasight.wire.strict import parse
from tests.wire.batches import batch
from tests.wire.echo import QUERY, Echo, frame

Target = Callable[[bytes], None]
_MESSAGES = (ShipRequest, QueryRequest, SubscribeRequest, StatusRequest, Envelope, Container, GotImage, Namespaces)
_KINDS = tuple(KINDS)


def protobuf(data: bytes) -> None:
    """The first byte says which message."""
    if data:
        with contextlib.suppress(InvalidRequest):
            message = parse(data[1:], _MESSAGES[data[0] % len(_MESSAGES)])
            assert parse(bytes(message), type(message)) == message or any(each != each for each in vars(message).values())


def arrow(data: bytes) -> None:
    """The first byte says which kind. What is taken is read all through, joined with itself as a growing batch is, and shaped for its table."""
    if not data:
        return
    kind = _KINDS[data[0] % len(_KINDS)]
    with contextlib.suppress(InvalidBatch):
        rows = codec.decode(kind, data[1:], max_rows=1 << 12, max_bytes=1 << 24)
        assert rows.schema.equals(arrow_schema(kind))
        assert all(not column.null_count for column in rows.columns)
        whole = codec.join([rows, rows.slice(rows.num_rows // 2), rows])
        whole.to_pylist()
        batches.check(kind, whole)
        if whole.num_rows:
            joining.question(kind, {"a": whole})
        if incoming := joining.joined({"a": whole, "b": rows}):
            batches.check_nulls(kind, incoming.rows)
            batches.as_stored(kind, incoming.rows, 0).validate(full=True)


def policies(data: bytes) -> None:
    """A policy file, on a machine without users."""
    path = Path(tempfile.gettempdir()) / "infrasight-fuzz-policy.toml"
    path.write_bytes(data)
    with contextlib.suppress(SettingsError):
        policy.load(path, passwd=Path("/dev/null"), mounts=Path("/dev/null"))


def specs(data: bytes) -> None:
    """An OCI runtime specification."""
    found = spec.read(data)
    assert isinstance(found.cgroup, bytes)


class _Deaf(docker.Docker):
    def __init__(self) -> None:
        """Asks nobody."""

    async def _get(self, path: str, **params: str) -> Any:
        return self.said


def dockers(data: bytes) -> None:
    """What docker says of a container, and of its image."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return
    asked = _Deaf()
    asked._digests = docker.Remembered[bytes]()
    asked.said = told
    try:
        _run(asked._facts(told))
    except UnicodeError:
        raise
    except ValueError:
        pass  # no id
    facts_of("", {"a": "b"}, image="", image_digest=b"", created_ns=time_ns(text(told, "Created")), privileged=False)


def pods(data: bytes) -> None:
    """What the API server of Kubernetes says of a pod."""
    if (found := kubernetes._pod(parsed(data))) is not None:
        key, facts = found
        assert key.id == facts.pod_uid != b""
        assert facts.weight() < 1 << 20
        assert not any(b"\0" in label for label in facts.all_labels)


def _run(work: Any) -> None:
    with contextlib.suppress(StopIteration):
        work.send(None)
        raise AssertionError("it waits for somebody")


class _Nowhere(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.closed = False

    def write(self, data: bytes) -> None: ...

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class _Http2:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.problems: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.problems.append(context))

    def __call__(self, data: bytes) -> None:
        """Bytes on a connection, in two reads; the first byte says where they part."""
        self.loop.run_until_complete(self._connection(data))
        assert not self.problems, self.problems

    async def _connection(self, data: bytes) -> None:
        services: list[Service] = [Echo()]
        server = _Server(services, services[0].refused, Limits(), None)
        protocol = _Protocol(server, _Handler(server))
        protocol.connection_made(_Nowhere())
        parts = data[:1] or b"\0"
        middle = len(data) * parts[0] // 255
        for part in (data[1:middle], data[max(1, middle) :]):
            if part and not protocol.connection.is_closing():
                protocol.data_received(part)
            for _ in range(3):
                await asyncio.sleep(0)
        protocol.held_bytes()
        protocol.connection_lost(None)
        server.hang_up()
        for _ in range(3):
            await asyncio.sleep(0)


class _Gate:
    def __init__(self) -> None:
        from infrasight.store.engine import Session  # an engine, which the other targets do not need
        from infrasight.store.gate import Gate
        from infrasight.store.settings import ENGINE_XML, USERS_XML

        directory = Path(tempfile.mkdtemp(prefix="infrasight-fuzz-"))
        (directory / "engine.xml").write_text(ENGINE_XML)
        (directory / "users.xml").write_text(USERS_XML)
        self.session = Session(directory / "clickhouse", directory / "engine.xml")
        self.session.execute("SET ROLE writer")
        self.gate = Gate(self.session)

    def __call__(self, data: bytes) -> None:
        """A query: judged, not run. What opens a door must not be let through, however it is written."""
        sql = data.decode(errors="replace")
        with contextlib.suppress(QueryRefused, EngineError):
            self.gate.check(self.session, sql, "TSV")
            lines = "\n".join(self.session.explain(sql)).lower()
            assert not any(f"function {name} " in lines for name in ("file", "url", "s3", "remote", "executable", "mysql")), sql


def _http2_seeds() -> Iterator[bytes]:
    from h2.config import H2Configuration
    from h2.connection import H2Connection

    for body in (frame(bytes(QueryRequest(sql="hello"))), frame(b"x", length=2**32 - 1), b""):
        client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        client.initiate_connection()
        post = [(":method", "POST"), (":scheme", "http"), (":path", QUERY), (":authority", "x"), ("te", "trailers")]
        client.send_headers(1, [*post, ("content-type", "application/grpc")])
        client.send_data(1, body, end_stream=True)
        client.ping(b"12345678")
        client.reset_stream(1)
        yield b"\x80" + client.data_to_send()


def _arrow_seeds() -> Iterator[bytes]:
    for kind in ("loss", "open", "execve"):
        for compression in ("lz4", "zstd", None):
            for rows in (0, 3):
                sink = pa.BufferOutputStream()
                made = batch(kind, rows)
                with pa.ipc.new_stream(sink, made.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                    writer.write_batch(made)
                yield bytes([_KINDS.index(kind)]) + sink.getvalue().to_pybytes()


_POLICY = b"""probes = ["open", "connect"]
[exclude]
comm = ["bash"]
user = ["0"]
[include]
path = ["/etc"]
[rate]
events = 100
[probe.open]
repeats = "1 s"
[probe.connect.exclude]
address = ["10.0.0.0/8"]
[redaction]
enabled = true
"""
_SPEC = {
    "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}},
    "linux": {"cgroupsPath": "/a/b", "resources": {"devices": [{"allow": True, "access": "rwm", "type": "a", "major": -1}]}},
}
_CONTAINER = {
    "Id": "ab",
    "Name": "/web",
    "Created": "2026-01-01T00:00:00.5Z",
    "Image": "sha256:ab",
    "Config": {"Image": "nginx:1", "Labels": {"a": "b", "io.kubernetes.pod.name": "p"}},
    "HostConfig": {"Privileged": True},
    "RepoDigests": ["nginx@sha256:cd"],
}
_HALF = '{"Name": "\\ud800", "linux": {"cgroupsPath": "/\\ud800"}, "Config": {"Labels": {"\\udfff": ""}}}'
"""Of a surrogate pair, which JSON can say."""
_POD = {
    "metadata": {
        "uid": "u",
        "name": "p",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {"a": "b", "pod-template-hash": "7c5d9f"},
        "annotations": {"kubernetes.io/config.mirror": ""},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7c5d9f", "controller": True}, {"kind": "Job", "name": "a-12345678"}],
    }
}
_QUERIES = (
    "SELECT count() FROM open WHERE has(ancestors, 'sshd') SETTINGS max_threads = 1",
    "WITH x AS (SELECT 1) SELECT * FROM x FORMAT CSV",
    "SELECT * FROM file('/etc/passwd')",
    "EXPLAIN AST SELECT 1; SELECT 2",
    "SELECT dictGet('d', 'a', 1), arrayMap(x -> x + 1, [1]) FROM remote('h', system.one)",
)

TARGETS: dict[str, Callable[[], Target]] = {
    "protobuf": lambda: protobuf,
    "arrow": lambda: arrow,
    "http2": _Http2,
    "gate": _Gate,
    "policy": lambda: policies,
    "spec": lambda: specs,
    "docker": lambda: dockers,
    "kubernetes": lambda: pods,
}
"""What makes each."""
SEEDS: dict[str, Callable[[], Iterator[bytes]]] = {
    "protobuf": lambda: iter(
        (
            b"\0" + bytes(ShipRequest(hello=Hello(node="n", boot_id="b", epoch=1))),
            b"\1" + bytes(QueryRequest(sql="SELECT 1", format="CSV")),
            b"\2" + bytes(SubscribeRequest(kinds=["open"], pids=[1, 2], max_rate_per_s=5)),
            b"\5" + bytes(Container(id="a", image="b")),
        )
    ),
    "arrow": _arrow_seeds,
    "http2": _http2_seeds,
    "gate": lambda: (each.encode() for each in _QUERIES),
    "policy": lambda: iter((_POLICY,)),
    "spec": lambda: iter((json.dumps(_SPEC).encode(), _HALF.encode())),
    "docker": lambda: iter((json.dumps(_CONTAINER).encode(), _HALF.encode())),
    "kubernetes": lambda: iter((json.dumps(_POD).encode(), json.dumps(_POD).replace('"u"', '"\\ud800"').encode())),
}
