"""The enricher: records become columns, and every row is told who did it."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from infrasight.actors import Actor, Mailbox
from infrasight.kernel import Records
from infrasight.node.columns import (
    Distinct,
    constant,
    encode_bytes,
    encode_c_strings,
    encode_padded,
    named,
    numbers,
    renamed,
    split_words,
    strings,
)
from infrasight.node.flow import Batch, Drain, Loss
from infrasight.node.identity import Identity
from infrasight.node.names import Names
from infrasight.node.processes import Processes
from infrasight.schema import KINDS, Column, Type, arrow_schema
from infrasight.schema.arrow import TYPES

NAMES_EVERY_S = 10.0
"""How often the files of users and groups are looked at for changes."""
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmp6", 132: "sctp", 136: "udplite"}
_SOCKET_TYPES = {1: "stream", 2: "dgram", 3: "raw", 5: "seqpacket"}
_UNIX = 1


def _number_or(names: Mapping[int, str]) -> Callable[[int], bytes]:
    return lambda number: (names.get(number) or str(number)).encode()


def _address(cell: bytes) -> bytes:
    family = int.from_bytes(cell[:2], "little")
    if family not in (2, 10):
        return b""
    return str(ipaddress.ip_address(cell[2:6] if family == 2 else cell[2:18])).encode()


def _addresses(records: Records, family: str, address: str) -> pa.DictionaryArray:
    cells = np.hstack([np.ascontiguousarray(records[family]).view(np.uint8).reshape(-1, 2), records[address]])
    encoded = pa.Array.from_buffers(pa.binary(18), len(cells), [None, pa.py_buffer(cells)]).dictionary_encode()
    return renamed(encoded, _address)


def _protocol(records: Records) -> pa.DictionaryArray:
    """Protocol number and socket type as one number; for unix sockets there is only the type."""
    key = records["socket_protocol"].astype(np.uint32) | records["socket_type"].astype(np.uint32) << 16
    key |= (records["socket_family"] == _UNIX).astype(np.uint32) << 31

    def name(value: int) -> bytes:
        protocol, kind, unix = value & 0xFFFF, value >> 16 & 0x7FFF, value >> 31
        return b"" if not kind else _number_or(_SOCKET_TYPES)(kind) if unix else _number_or(_PROTOCOLS)(protocol)

    return named(key, name)


def _unix_path(path: bytes) -> bytes:
    """A path ends at its NUL; an abstract address begins with one, and is shown with an @ there, as ss and netstat do."""
    return b"@" + path[1:] if path[:1] == b"\0" else path.split(b"\0", 1)[0]


NUMPY: dict[Type, type[np.generic]] = {
    Type.BOOL: np.uint8,
    Type.U16: np.uint16,
    Type.U32: np.uint32,
    Type.U64: np.uint64,
    Type.I32: np.int32,
    Type.I64: np.int64,
}
"""What numpy calls the types of columns that are numbers."""
MAKERS: dict[tuple[str, str], Callable[[Records], pa.Array]] = {
    ("connect", "path"): lambda records: renamed(encode_bytes(records, "path"), _unix_path),
    ("connect", "protocol"): _protocol,
    ("connect", "daddr"): lambda records: _addresses(records, "family", "daddr"),
    ("connect", "saddr"): lambda records: _addresses(records, "socket_family", "saddr"),
    ("process", "exit_code"): lambda records: numbers((records["status"] >> 8 & 0xFF).astype(np.int32), pa.int32()),
    ("process", "signal"): lambda records: numbers((records["status"] & 0x7F).astype(np.int32), pa.int32()),
}
"""Columns that are more than the field or the slot of the same name."""


def _make(kind: str, column: Column, records: Records) -> pa.Array:
    """A column by its declaration: a string or words from a slot, a name or a number from a field."""
    if make := MAKERS.get((kind, column.name)):
        return make(records)
    if column.type is Type.TEXT:
        return encode_c_strings(records, column.name)
    if column.type is Type.WORDS:
        return split_words(records, column.name)
    if column.names:
        return named(records[column.name], _number_or(column.names))
    return numbers(records[column.name].astype(NUMPY[column.type], copy=False), TYPES[column.type])


class Enricher(Actor):
    """Drains in, batches out, in order. A batch is one kind and one look at the rings."""

    name = "enricher"

    def __init__(self, inbox: Mailbox[Drain], outbox: Mailbox[Batch], *, node: str, boot: str, family: tuple[int, ...] = ()) -> None:
        self._inbox, self._outbox = inbox, outbox
        self._node = node.encode()
        self._identity = Identity(node, boot)
        self._family = np.array(family, np.uint32)
        self._users, self._groups = Names(Path("/etc/passwd")), Names(Path("/etc/group"))
        self._names_read_s = time.monotonic()
        self.processes = Processes(self._identity)
        self._primed = False

    async def run(self) -> None:
        """Until the inbox is closed and empty."""
        if not self._primed:
            await asyncio.to_thread(self.processes.prime)
            self._primed = True
        async for drain in self._inbox:
            await self._refresh(drain)
            for batch in self.batches(drain):
                await self._outbox.put(batch)

    async def _refresh(self, drain: Drain) -> None:
        if any(loss.probe == "process" for loss in drain.losses):
            await asyncio.to_thread(self.processes.prime)
        if time.monotonic() - self._names_read_s > NAMES_EVERY_S:
            self._names_read_s = time.monotonic()
            await asyncio.to_thread(self._users.refresh)
            await asyncio.to_thread(self._groups.refresh)

    def batches(self, drain: Drain) -> Iterator[Batch]:
        """The batches that a drain makes; process life is learned first."""
        for records in drain.life:
            new = self.processes.apply(records)
            ours = np.isin(records["pid"], self._family) | np.isin(records["ppid"], self._family)
            shown = records[new & ~ours]
            if len(shown):
                yield self._batch("process", shown, drain.wall_offset_ns)
        for layout, records in drain.data:
            yield self._batch(layout.kind.name, records, drain.wall_offset_ns)
        if drain.losses:
            yield self._losses(drain.losses)

    def _batch(self, kind: str, records: Records, wall_offset_ns: int) -> Batch:
        schema = arrow_schema(kind)
        columns = self._who(records, wall_offset_ns)
        for column in KINDS[kind].columns:
            if column.name not in columns:
                columns[column.name] = _make(kind, column, records)
        batch = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        return Batch(kind, batch, int(records["enter_ns"][0]) + wall_offset_ns)

    def _who(self, records: Records, wall_offset_ns: int) -> dict[str, pa.Array]:
        ids = self._identity.of(records["start_ns"], records["pid"])
        distinct = Distinct.of(ids)
        first = distinct.first()
        found = [
            self.processes.find(me, pid, ppid)
            for me, pid, ppid in zip(distinct.values.tolist(), records["pid"][first].tolist(), records["ppid"][first].tolist(), strict=True)
        ]
        parents = np.array([process.parent_id for process in found], np.uint64)
        return {
            "ts": numbers(records["enter_ns"].astype(np.int64) + wall_offset_ns, TYPES[Type.TIME]),
            "node": constant(self._node, len(records)),
            "user": named(records["uid"], self._users.name),
            "group": named(records["gid"], self._groups.name),
            "comm": encode_padded(np.ascontiguousarray(records["comm"]).view(np.uint8).reshape(len(records), -1)),
            "process_id": numbers(ids, pa.uint64()),
            "parent_id": numbers(parents[distinct.codes], pa.uint64()),
            "ancestors": distinct.name([process.lineage for process in found]),
        }

    def _losses(self, losses: list[Loss]) -> Batch:
        columns = {
            "ts": numbers(np.array([loss.until_ns for loss in losses], np.int64), TYPES[Type.TIME]),
            "node": constant(self._node, len(losses)),
            "since": numbers(np.array([loss.since_ns for loss in losses], np.int64), TYPES[Type.TIME]),
            "probe": strings([loss.probe.encode() for loss in losses]).dictionary_encode(),
            "reason": strings([loss.reason.encode() for loss in losses]).dictionary_encode(),
            "count": numbers(np.array([loss.count for loss in losses], np.uint64), pa.uint64()),
        }
        schema = arrow_schema("loss")
        batch = pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)
        return Batch("loss", batch, losses[0].since_ns)
