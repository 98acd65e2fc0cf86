"""The enricher: records become columns, and every row is told who did it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from infrasight.actors import Actor, Mailbox
from infrasight.kernel import Records, syscall_names
from infrasight.node import sockets
from infrasight.node.columns import (
    FEW,
    constant,
    encode_c_strings,
    encode_padded,
    encode_pairs,
    named,
    numbers,
    renamed,
    split_words,
    strings,
    trimmed,
)
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.columns import Contained
from infrasight.node.containers.containment import Container
from infrasight.node.containers.table import Containers
from infrasight.node.delivery.tally import Tally, read_as_rows
from infrasight.node.doers import STATE, Doers, Sources, states
from infrasight.node.flow import Batch, Drain, Loss
from infrasight.node.growth import Growth, counters
from infrasight.node.identity import Identity
from infrasight.node.names.answers import Answers
from infrasight.node.names.namespaces import Namespaces
from infrasight.node.names.reverse import ReverseNames
from infrasight.node.names.users import Names
from infrasight.node.paths import all_plain, placed, resolved
from infrasight.node.processes import Processes, Scan, mount_namespace
from infrasight.node.redaction.redactor import Redactor
from infrasight.schema import KINDS, Column, Kind, Type, arrow_schema
from infrasight.schema.arrow import TYPES
from infrasight.schema.columns import RESOLVED, Source
from infrasight.schema.events.connect import CONNECT
from infrasight.schema.events.dns import DNS
from infrasight.schema.events.mount import COMMANDS, FSCONFIG
from infrasight.schema.events.process import CGROUP, CGROUP_GONE
from infrasight.schema.events.syscall_freq import SYSCALL_FREQ

Who = dict[str, pa.Array]
"""The columns that say who did it, and when."""
NAMES_EVERY_S = 10.0
"""How often the files of users and groups are looked at for changes."""
SCAN_EVERY = 20
"""How many times as long as it took until /proc is looked at again."""
_SOURCE = b"source"
_HEAD = (*STATE, "enter_ns", "comm")
"""Members of a record that say who did it, and when."""
DOERS_MAX = 2048
"""Doers kept at most, about 500 bytes each."""
TOGETHER = 2048
"""Records of all kinds in a drain up to which it is found out once for all who did it; the columns of each kind then hold on to those of all."""
SPARE = 2
"""How many times as many as a batch has of them may be kept."""
KEPT_NS = 1_000_000_000
"""How long they are kept: by then all is asked for again, so that nothing is forgotten, or goes stale, for not being asked for."""


def _number_or(names: Mapping[int, str]) -> Callable[[int], bytes]:
    return lambda number: names.get(number, str(number)).encode()


def paths(records: Records, path: str) -> dict[str, pa.DictionaryArray]:
    """The two columns of a path. Where no row has a place, what is given says all, and is encoded once."""
    if records[f"{path}_place_len"].any() or records[f"{path}_whole"].any():
        pairs = encode_pairs(records, path, f"{path}_place", f"{path}_whole")
        return {path: pairs.name([given for given, *_ in pairs.values]), f"{path}{RESOLVED}": pairs.name([resolved(*pair) for pair in pairs.values])}
    given = encode_c_strings(records, path)
    plain = all_plain(given.dictionary.to_pylist())
    return {path: given, f"{path}{RESOLVED}": given if plain else renamed(given, lambda each: resolved(each, b"", 0))}


def place(records: Records, slot: str) -> pa.DictionaryArray:
    """Where a file is, found once for each distinct one."""
    pairs = encode_pairs(records, slot, slot, f"{slot}_cut")
    return pairs.name([placed(names, bool(cut)) for names, _, cut in pairs.values])


def _only(records: Records, slot: str, rows: npt.NDArray[np.bool_]) -> pa.DictionaryArray:
    """A slot in some of the rows; in the others it means something else."""
    lengths = np.where(rows, records[f"{slot}_len"], np.uint32(0))
    return encode_c_strings(Records({slot: records[slot], f"{slot}_len": lengths}, len(records)), slot)


def _mount_source(records: Records) -> pa.DictionaryArray:
    """Whatever is mounted; fsconfig tells it as the value of a key."""
    named_so = (records["key_len"] == len(_SOURCE)) & (records["key"][:, : len(_SOURCE)] == np.frombuffer(_SOURCE, np.uint8)).all(axis=1)
    return _only(records, "source", (records["call"] != FSCONFIG) | named_so)


def _mount_command(records: Records) -> pa.DictionaryArray:
    commands = np.where(records["call"] == FSCONFIG, records["command"].astype(np.int64), -1)
    return named(commands, lambda command: b"" if command < 0 else _number_or(COMMANDS)(command))


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
    **sockets.MAKERS,
    ("syscall_freq", "syscall"): lambda records: named(records["number"], _number_or(syscall_names())),
    ("mount", "source"): _mount_source,
    ("mount", "value"): lambda records: _only(records, "source", records["call"] == FSCONFIG),
    ("mount", "command"): _mount_command,
    ("execve", "redacted"): lambda records: numbers(np.zeros(len(records), np.uint8), pa.uint8()),
    ("process", "exit_code"): lambda records: numbers((records["status"] >> 8 & 0xFF).astype(np.int32), pa.int32()),
    ("process", "signal"): lambda records: numbers((records["status"] & 0x7F).astype(np.int32), pa.int32()),
}
"""Columns that are more than the field or the slot of the same name."""


def _maker(kind: Kind, column: Column) -> Callable[[Records], pa.Array]:
    """How a column is made by its declaration: a string or words from a slot, a name or a number from a field."""
    name, names = column.name, column.names
    if make := MAKERS.get((kind.name, name)):
        return make
    if any(slot.name == name and slot.source is Source.PLACE for slot in kind.slots):
        return partial(place, slot=name)
    if column.type is Type.TEXT:
        return partial(encode_c_strings, slot=name)
    if column.type is Type.WORDS:
        return partial(split_words, slot=name)
    if names:
        return lambda records: named(records[name], _number_or(names))
    dtype, arrow = NUMPY.get(column.type), TYPES[column.type]
    return lambda records: numbers(records[name].astype(dtype, copy=False), arrow)


@cache
def _makers(kind: str) -> dict[str, Callable[[Records], pa.Array]]:
    """How each column of a kind is made, in order, unless it is made together with others."""
    return {column.name: _maker(KINDS[kind], column) for column in KINDS[kind].columns}


class Enricher(Actor):
    """Drains in, batches out, in order. A batch is one kind and one look at the rings."""

    name = "enricher"

    def __init__(
        self,
        inbox: Mailbox[Drain],
        outbox: Mailbox[Batch],
        *,
        node: str,
        boot: str,
        family: tuple[int, ...] = (),
        reverse: ReverseNames | None = None,
        containers: Containers | None = None,
        tally: Tally | None = None,
    ) -> None:
        """Rows that are not a record each are counted in `tally` when they are made."""
        self._inbox, self._outbox = inbox, outbox
        self.containers = Containers() if containers is None else containers
        self._tally = tally or Tally()
        self._contained = Contained(self.containers)
        self._kept: Doers | None = None
        self._made: list[Container] = []
        self._node = node.encode()
        self._identity = Identity(node, boot)
        self._family = np.array(family, np.uint32)
        self._users, self._groups = Names(Path("/etc/passwd")), Names(Path("/etc/group"))
        self._names_read_s = time.monotonic()
        self.namespaces = Namespaces()
        self.processes = Processes(self._identity)
        self.cgroups = Cgroups()
        self._growth = {kind.name: Growth(counters(kind), self._identity) for kind in KINDS.values() if kind.account}
        self._answers, self._reverse = Answers(), reverse
        self.redactor = Redactor()
        self._primed = self._torn = False
        self._scan: asyncio.Task[tuple[Scan, Mapping[int, Container]]] | None = None
        self._scan_began_s = self._scan_due_s = 0.0

    async def run(self) -> None:
        """Until the inbox is closed and empty."""
        if not self._primed:
            await asyncio.to_thread(self.processes.prime)
            await asyncio.to_thread(self.cgroups.prime)
            root = os.stat("/")
            self.namespaces.is_own(mount_namespace("self"), (root.st_dev, root.st_ino))
            await self.namespaces.prime(self.processes.inside())
            self._primed = True
        async for drain in self._inbox:
            await self._refresh(drain)
            drain = self._acquainted(drain)
            for records in drain.life:
                self.namespaces.meet(records)
            if self._made:
                await self.containers.wait_for([self._made.pop() for _ in range(len(self._made))])
            await self.namespaces.wait()
            for batch in self._batches(drain):
                if not read_as_rows(KINDS[batch.kind]):
                    self._tally.take(batch.kind, batch.columns.num_rows)
                await self._outbox.put(batch)

    async def _refresh(self, drain: Drain) -> None:
        self._mend(any(loss.probe == "process" for loss in drain.losses))
        if time.monotonic() - self._names_read_s > NAMES_EVERY_S:
            self._names_read_s, self._kept = time.monotonic(), None
            await asyncio.to_thread(self._users.refresh)
            await asyncio.to_thread(self._groups.refresh)

    def _mend(self, torn: bool) -> None:
        """What is not known of processes and cgroups since process life was lost is learned from /proc and the hierarchy, beside everything else, and
        again after the next loss: a machine with ten thousands of processes takes a second of a processor."""
        if self._scan and self._scan.done():
            scan, self._scan = self._scan, None
            self._scan_due_s = time.monotonic() + SCAN_EVERY * (time.monotonic() - self._scan_began_s)
            processes, cgroups = scan.result()
            self.processes.learn(processes)
            self.cgroups.learn(cgroups)
        self._torn |= torn
        if self._torn and not self._scan and time.monotonic() >= self._scan_due_s:
            self._torn, self._scan_began_s = False, time.monotonic()
            self._scan = asyncio.get_running_loop().create_task(asyncio.to_thread(self._look), name="enricher.scan")

    def _look(self) -> tuple[Scan, Mapping[int, Container]]:
        return self.processes.scan(), self.cgroups.scan()

    def batches(self, drain: Drain) -> Iterator[Batch]:
        """The batches that a drain makes, without a wait for what runtimes may tell."""
        return self._batches(self._acquainted(drain))

    def _batches(self, drain: Drain) -> Iterator[Batch]:
        """The batches that a drain makes; process life is learned first."""
        for records in drain.life:
            new = self.processes.apply(records)
            ours = np.equal.outer(records["pid"], self._family) | np.equal.outer(records["ppid"], self._family)
            shown = new & ~ours.any(axis=1)
            if shown.any():
                yield self._batch("process", records if shown.all() else records[shown], drain.wall_offset_ns)
        for layout, records in drain.accounts:
            yield from self._grown(layout.kind.name, records, np.full(len(records), drain.looked_ns, np.uint64), drain.wall_offset_ns, final=False)
        if drain.swept:
            self._growth[drain.swept].looked()
        data = sorted(drain.data, key=lambda each: each[0].kind is not DNS)
        for layout, records in data:
            if layout.kind.account:
                yield from self._grown(layout.kind.name, records, records["enter_ns"] + records["latency_ns"], drain.wall_offset_ns, final=True)
        data = [each for each in data if not each[0].kind.account]
        for (layout, records), who in zip(data, self._who_in([records for _, records in data], drain.wall_offset_ns), strict=True):
            yield self._batch(layout.kind.name, records, drain.wall_offset_ns, who)
        if drain.losses:
            yield self._losses(drain.losses)
        self._heed()
        self.processes.forget(drain.whole_until_ns)
        self.cgroups.forget(drain.whole_until_ns)

    def _acquainted(self, drain: Drain) -> Drain:
        """What remains of a drain once it has been learned what cgroups there are."""
        life: list[Records] = []
        for records in drain.life:
            of_cgroups = (records["action"] == CGROUP) | (records["action"] == CGROUP_GONE)
            if of_cgroups.any():
                self._made += self.cgroups.apply(records[of_cgroups], drain.wall_offset_ns)
                records = records[~of_cgroups]
            life.append(records)
        return replace(drain, life=life)

    def _grown(self, kind: str, accounts: Records, now_ns: npt.NDArray[np.uint64], wall_offset_ns: int, *, final: bool) -> Iterator[Batch]:
        """What has been added to accounts since they were last seen, as rows."""
        growth = self._growth[kind].of(accounts, now_ns, final)
        if growth is None:
            return
        rows = growth.rows(final) if kind == SYSCALL_FREQ.name else growth.columns(final)
        if len(rows):
            yield self._batch(kind, rows, wall_offset_ns)

    def _batch(self, kind: str, records: Records, wall_offset_ns: int, who: Who | None = None) -> Batch:
        columns = (who or self._who(records, wall_offset_ns)) | self._names_of(kind, records)
        for slot in KINDS[kind].slots:
            if slot.source is Source.PATH:
                columns |= paths(records, slot.name)
        columns = {name: columns[name] if name in columns else make(records) for name, make in _makers(kind).items()}
        arrays = list(self.redactor.redacted(kind, columns).values())
        batch = pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(kind))
        return Batch(kind, batch, int(records["enter_ns"][0]) + wall_offset_ns)

    def _names_of(self, kind: str, records: Records) -> dict[str, pa.Array]:
        """What answers of name servers say, and whom they led to whom; the answers in a drain are told before the rest of it."""
        if kind not in (DNS.name, CONNECT.name):
            return {}
        ids = self._identity.of(records["start_ns"], records["pid"])
        if kind == CONNECT.name:
            return dict(sockets.connect_names(records, ids, self._answers, self._reverse))
        messages = sockets.dns_messages(records)
        began, ended = records["enter_ns"].tolist(), (records["enter_ns"] + records["latency_ns"]).tolist()
        for process_id, when_ns, message in zip(ids.tolist(), began, messages, strict=True):
            if not message.answer:
                self._answers.ask(process_id, when_ns, message)
        for process_id, when_ns, message in zip(ids.tolist(), ended, messages, strict=True):
            if message.answer:
                self._answers.learn(process_id, when_ns, message)
        return sockets.dns_columns(messages)

    def _who_in(self, several: list[Records], wall_offset_ns: int) -> Iterator[Who]:
        """Who did it, in several kinds of records. Where there are not many, they are looked up together."""
        if len(several) < 2 or sum(map(len, several)) > TOGETHER:
            yield from (self._who(records, wall_offset_ns) for records in several)
            return
        heads = {name: np.concatenate([records[name] for records in several]) for name in _HEAD}
        ends = list(accumulate(map(len, several), initial=0))
        who = self._who(Records(heads, ends[-1]), wall_offset_ns)
        for start, end in pairwise(ends):
            yield {name: trimmed(column.slice(start, end - start)) for name, column in who.items()}

    def _who(self, records: Records, wall_offset_ns: int) -> Who:
        return {
            "ts": numbers(records["enter_ns"].astype(np.int64) + wall_offset_ns, TYPES[Type.TIME]),
            "node": constant(self._node, len(records)),
            "comm": encode_padded(np.ascontiguousarray(records["comm"]).view(np.uint8).reshape(len(records), -1)),
            **self._doers(records),
        }

    def _doers(self, records: Records) -> dict[str, pa.Array]:
        """The columns (n,) that say who it was. The doers of large batches are kept; where a batch has few of them, or they are too many, it has its
        own, since the columns of a batch hold the names of all."""
        distinct = states(records)
        self._heed(int(records["enter_ns"][0]))
        if len(records) > FEW:
            kept = self._kept or Doers(self._sources, int(records["enter_ns"][0]))
            found = kept.find(distinct.values)
            new = found.count(None)
            if len(kept) + new > SPARE * kept.widest:  # others than before
                kept, new = Doers(self._sources, int(records["enter_ns"][0])), len(found)
                found = kept.find(distinct.values)
            if len(kept) + new <= min(DOERS_MAX, SPARE * len(found)):
                self._kept = kept
                if new:
                    missing = [number for number, place in enumerate(found) if place is None]
                    kept.add([distinct.values[number] for number in missing], self._heads(records, distinct.first()[missing]))
                    found = kept.find(distinct.values)
                return kept.columns(np.array(found, np.int64).take(distinct.codes))
        own = Doers(self._sources)
        own.add(distinct.values, self._heads(records, distinct.first()))
        return own.columns_once(distinct.codes)

    def _heads(self, records: Records, rows: npt.NDArray[np.int64]) -> Records:
        return Records({name: records[name][rows] for name in STATE}, len(rows))

    def _heed(self, now_ns: int = 0) -> None:
        """Keep of the doers what is still so, at this time by the monotonic clock if it is not earlier than they are."""
        processes, cgroups = self.processes, self.cgroups
        if self._kept:
            self._kept.forget(processes.changed)
            fresh = now_ns - self._kept.since_ns < KEPT_NS
            if not (fresh and self._kept.holds(processes.changed_directories, cgroups.changed)):
                self._kept = None
        processes.changed.clear()
        processes.changed_directories.clear()
        cgroups.changed.clear()

    @property
    def _sources(self) -> Sources:
        names = self._users, self._groups
        return Sources(self._identity, self.processes, self.cgroups, self.containers, self._contained, self.namespaces, *names)

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
