"""What has been added to accounts between two looks, and the rows that become of it."""

import asyncio
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.actors import Mailbox
from infrasight.kernel import Records, syscall_names
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Drain
from infrasight.node.growth import Grown, Growth, counters
from infrasight.node.identity import Identity
from infrasight.node.reader import Reader
from infrasight.schema import KINDS, arrow_schema
from infrasight.schema.events.resource import RESOURCE
from infrasight.schema.events.syscall_freq import CALL_NUMBERS, SYSCALL_FREQ
from infrasight.schema.kinds import filled_bytes
from tests.node.records import layout_of, make, together
from tests.node.test_enricher import OFFSET, enricher_of, rows
from tests.node.test_reader import Clock, Kernel

COUNTERS = counters(RESOURCE)
START = 10**12
Account = tuple[int, int, dict[int, int]]
"""Process id, when it was opened, and what its counters hold by place."""


def growth_of(kind: str) -> Growth:
    return Growth(counters(KINDS[kind]), Identity("node", "boot"))


def account(kind: str, pid: int, opened: int, held: dict[int, int], **more: Any) -> Records:
    """One account as the kernel has it, where counts of calls go round."""
    if kind == "resource":
        values: dict[str, Any] = {name: held.get(place, 0) for place, name in enumerate(COUNTERS)}
        return make(kind, 1, pid=pid, start_ns=START, enter_ns=opened, **values, **more)
    records = make(kind, 1, pid=pid, start_ns=START, enter_ns=opened, **more)
    records["calls"][:] = [held.get(place, 0) % 2**32 for place in range(CALL_NUMBERS)]
    return records


def look(growth: Growth, kind: str, now: int, *accounts: Account) -> Grown | None:
    """One look at the accounts of all live processes."""
    grown = None
    if accounts:
        records = together(*(account(kind, *each) for each in accounts))
        grown = growth.of(records, np.full(len(records), now, np.uint64), final=False)
    growth.looked()
    return grown


def told(grown: Grown | None) -> list[tuple[int, int, dict[int, int]]]:
    """Process, ns since it was last looked at, and what is new."""
    if grown is None:
        return []
    found = zip(grown.accounts["pid"].tolist(), grown.spans_ns.tolist(), grown.grown, strict=True)
    return [(pid, span, {place: int(row[place]) for place in np.flatnonzero(row).tolist()}) for pid, span, row in found]


def end(growth: Growth, kind: str, now: int, each: Account) -> list[tuple[int, int, dict[int, int]]]:
    return told(growth.of(account(kind, *each), np.array([now], np.uint64), final=True))


KIND = pytest.mark.parametrize("kind", ["resource", "syscall_freq"])


@KIND
def test_only_what_is_new_is_told(kind: str) -> None:
    growth = growth_of(kind)
    assert told(look(growth, kind, 150, (7, 100, {0: 5, 3: 1}), (8, 120, {1: 2}))) == [(7, 50, {0: 5, 3: 1}), (8, 30, {1: 2})]
    assert told(look(growth, kind, 250, (7, 100, {0: 9, 3: 1}), (8, 120, {1: 2}))) == [(7, 100, {0: 4})]
    assert look(growth, kind, 350, (7, 100, {0: 9, 3: 1}), (8, 120, {1: 2})) is None
    assert told(look(growth, kind, 450, (7, 100, {0: 9, 3: 1}), (8, 120, {0: 1, 1: 5}))) == [(8, 100, {0: 1, 1: 3})]
    assert end(growth, kind, 470, (8, 120, {0: 1, 1: 6})) == [(8, 20, {1: 1})]
    assert end(growth, kind, 480, (7, 100, {0: 9, 3: 1})) == [(7, 30, {})], "the end is told also when nothing is new"
    assert len(growth) == 0


@KIND
def test_one_that_was_never_looked_at_is_told_whole_at_its_end(kind: str) -> None:
    assert end(growth_of(kind), kind, 1000, (7, 100, {2: 3, 12: 1})) == [(7, 900, {2: 3, 12: 1})]


@KIND
def test_two_accounts_of_one_process(kind: str) -> None:
    growth = growth_of(kind)
    assert told(look(growth, kind, 200, (7, 100, {0: 5}), (7, 101, {0: 1}))) == [(7, 100, {0: 5}), (7, 99, {0: 1})]
    assert told(look(growth, kind, 300, (7, 101, {0: 3}), (7, 100, {0: 6}))) == [(7, 100, {0: 2}), (7, 100, {0: 1})]
    assert end(growth, kind, 310, (7, 100, {0: 6})) + end(growth, kind, 310, (7, 101, {0: 4})) == [(7, 10, {}), (7, 10, {0: 1})]
    assert len(growth) == 0


@KIND
def test_what_was_last_seen_before_the_one_before_is_forgotten(kind: str) -> None:
    """Its end was lost. One whose end is still on its way is not forgotten."""
    growth = growth_of(kind)
    look(growth, kind, 200, (7, 100, {0: 5}), (8, 100, {0: 5}))
    look(growth, kind, 300, (8, 100, {0: 5}))
    assert len(growth) == 2
    assert end(growth, kind, 290, (7, 100, {0: 8})) == [(7, 90, {0: 3})]
    look(growth, kind, 400)
    assert len(growth) == 1
    look(growth, kind, 500)
    assert len(growth) == 0


@KIND
def test_one_that_was_read_while_it_was_cleared(kind: str) -> None:
    """It seems to have shrunk."""
    growth = growth_of(kind)
    look(growth, kind, 200, (7, 100, {0: 5, 1: 9}))
    assert look(growth, kind, 300, (7, 100, {0: 0, 1: 10})) is None
    assert end(growth, kind, 290, (7, 100, {0: 6, 1: 11})) == [(7, 0, {0: 1, 1: 2})]


def test_counts_that_go_round() -> None:
    growth = growth_of("syscall_freq")
    look(growth, "syscall_freq", 150, (7, 100, {0: 2**31 - 1}))
    look(growth, "syscall_freq", 200, (7, 100, {0: 2**32 - 5}))
    assert told(look(growth, "syscall_freq", 300, (7, 100, {0: 10}))) == [(7, 100, {0: 15})]
    assert end(growth, "syscall_freq", 400, (7, 100, {0: 9})) == [(7, 100, {0: 2**32 - 1})], "an end is never half of it"


steps = st.lists(
    st.dictionaries(st.tuples(st.integers(1, 4), st.sampled_from([100, 101])), st.dictionaries(st.integers(0, 12), st.integers(1, 2**30))), max_size=8
)


@KIND
@given(steps=steps)
def test_the_sum_of_all_rows_is_what_the_account_holds_at_its_end(kind: str, steps: list[dict[tuple[int, int], dict[int, int]]]) -> None:
    growth, held, sums = growth_of(kind), {}, {}
    for number, step in enumerate(steps):
        for key, more in step.items():
            held.setdefault(key, Counter()).update(more)
        grown = look(growth, kind, 200 + 100 * number, *((pid, opened, dict(counts)) for (pid, opened), counts in held.items()))
        if grown is None:
            continue
        add(sums, kind, grown.columns(final=False) if kind == "resource" else grown.rows(final=False))
    for (pid, opened), counts in held.items():
        grown = growth.of(account(kind, pid, opened, dict(counts)), np.array([10_000], np.uint64), final=True)
        assert grown
        add(sums, kind, grown.columns(final=True) if kind == "resource" else grown.rows(final=True))
    expected: dict[int, Counter[int]] = {}
    for (pid, _), counts in held.items():
        expected.setdefault(pid, Counter()).update(counts)
    assert {pid: counts for pid, counts in sums.items() if counts} == {pid: counts for pid, counts in expected.items() if counts}
    assert len(growth) == 0


def add(sums: dict[int, Counter[int]], kind: str, records: Records) -> None:
    for row, pid in enumerate(records["pid"].tolist()):
        if kind == "resource":
            new = {place: int(records[name][row]) for place, name in enumerate(COUNTERS) if records[name][row]}
        else:
            new = {int(records["number"][row]): int(records["count"][row])}
        sums.setdefault(pid, Counter()).update(new)


WHO = {"ppid": 3, "uid": 0, "gid": 0, "comm": b"program", "exec_id": 4}


def drain(kind: str, accounts: list[Records], ended: list[Records], looked_ns: int = 0) -> Drain:
    layout = layout_of(kind)
    return Drain([], [(layout, each) for each in ended], [], [(layout, each) for each in accounts], OFFSET, looked_ns)


def batches(enricher: Enricher, given: Drain) -> list[dict[str, Any]]:
    found = list(enricher.batches(given))
    assert all(each.columns.schema == arrow_schema(each.kind) and each.columns.num_rows for each in found)
    return [row for each in found for row in rows(each)]


def test_rows_of_what_is_used(tmp_path: Path) -> None:
    enricher, second = enricher_of(tmp_path), 10**9
    live = account("resource", 7, second, {0: 500, 9: 3}, **WHO)
    (row,) = batches(enricher, drain("resource", [live], [], 3 * second))
    assert {name: row[name] for name in COUNTERS} == {name: {0: 500, 9: 3}.get(place, 0) for place, name in enumerate(COUNTERS)}
    assert (row["pid"], row["ppid"], row["comm"], row["interval_ns"], row["final"]) == (7, 3, b"program", 2 * second, False)
    assert row["ts"] == 3 * second + OFFSET
    assert batches(enricher, drain("resource", [live], [], 4 * second)) == []
    ended = account("resource", 7, second, {0: 600, 9: 3}, **WHO | {"comm": b"another"}, latency_ns=4 * second)
    (row,) = batches(enricher, drain("resource", [], [ended]))
    assert (row["cpu_ns"], row["bytes_read"], row["interval_ns"], row["final"]) == (100, 0, second, True)
    assert (row["ts"], row["comm"]) == (5 * second + OFFSET, b"another")


def test_rows_of_calls(tmp_path: Path) -> None:
    enricher = enricher_of(tmp_path)
    (name, other), unknown = list(syscall_names())[:2], CALL_NUMBERS - 1
    live = together(account("syscall_freq", 7, 100, {name: 5, unknown: 1}, **WHO), account("syscall_freq", 8, 200, {other: 2}, **WHO))
    found = batches(enricher, drain("syscall_freq", [live], [], 1000))
    names = [syscall_names()[name].encode(), str(unknown).encode(), syscall_names()[other].encode()]
    assert [(row["pid"], row["syscall"], row["number"], row["count"]) for row in found] == [
        (7, names[0], name, 5),
        (7, names[1], unknown, 1),
        (8, names[2], other, 2),
    ]
    assert [(row["interval_ns"], row["final"], row["ts"]) for row in found] == [(900, False, 1000 + OFFSET)] * 2 + [(800, False, 1000 + OFFSET)]
    ends = [account("syscall_freq", 7, 100, {name: 6, unknown: 1}, **WHO, latency_ns=1000), account("syscall_freq", 8, 200, {other: 2}, **WHO)]
    (row,) = batches(enricher, drain("syscall_freq", [], ends))
    assert (row["pid"], row["number"], row["count"], row["interval_ns"], row["final"]) == (7, name, 1, 100, True)


def test_an_account_that_ends_between_the_look_and_the_rings(tmp_path: Path) -> None:
    """Both are in one drain; the end is the newer."""
    enricher = enricher_of(tmp_path)
    live, ended = account("resource", 7, 100, {0: 500}, **WHO), account("resource", 7, 100, {0: 501}, **WHO, latency_ns=950)
    found = batches(enricher, drain("resource", [live], [ended], 1000))
    assert [(row["cpu_ns"], row["interval_ns"], row["final"]) for row in found] == [(500, 900, False), (1, 50, True)]


class Watched:
    """In place of the accounts of a kind: when they are looked at."""

    running = True
    layout = layout_of(RESOURCE.name)

    def __init__(self, clock: Clock) -> None:
        self._clock, self.looks = clock, list[int]()

    def read(self) -> list[Records]:
        self.looks.append(self._clock.now_ns)
        return [account("resource", 7, 100, {0: len(self.looks)})]

    def take_ended(self) -> tuple[None, bool]:
        return None, False

    def next_interval(self) -> None:
        """Nobody asks."""


async def test_a_reader_with_much_to_read_still_looks_at_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ring is full again at every look, and whoever takes what was read is slow."""
    clock = Clock()
    monkeypatch.setattr("infrasight.node.reader.time", clock)
    kernel, watched, interval_ns = Kernel(), Watched(clock), 10**8
    kernel.accounts = {"resource": watched}
    outbox: Mailbox[Drain] = Mailbox("out", limit=2)
    reader = Reader(kernel, outbox, interval_ns / 1e9)  # type: ignore[arg-type]
    running = asyncio.create_task(reader.run())
    ring, drains = kernel.memory["open"], []
    while len(watched.looks) < 8:
        if not ring.ring.is_filled():
            kernel.happens("open", *range(filled_bytes(ring.size) // ring.stride + 1))
        drains.append(await outbox.get())
        clock.now_ns += 4 * 10**6
    reader.stop()
    while not running.done():
        if (drain := outbox.get_nowait()) is not None:
            drains.append(drain)
        await asyncio.sleep(0)
    gaps = np.diff(watched.looks[:8])
    assert gaps.min() >= interval_ns
    assert np.median(gaps) < 2 * interval_ns
    assert len(watched.looks) == 9, "once more at the end"
    with_accounts = [drain for drain in drains if drain.accounts] + [each for each in iter(outbox.get_nowait, None) if each.accounts]
    assert len(with_accounts) == 9
    assert len(drains) > 20
    assert all(drain.looked_ns > 0 for drain in with_accounts)
    for each in kernel.memory.values():
        each.close()


def test_memory_of_5000_processes(record_property: Callable[[str, object], None]) -> None:
    """What is kept of them between two looks."""
    held = dict.fromkeys(range(30), 1)
    accounts = {kind.name: together(*(account(kind.name, pid, 100, held) for pid in range(1, 5001))) for kind in (RESOURCE, SYSCALL_FREQ)}
    tracemalloc.start()
    kept = []
    for kind, records in accounts.items():
        growth = growth_of(kind)
        for first in range(0, 5000, 512):
            some = records[np.arange(first, min(first + 512, 5000))]
            growth.of(some, np.full(len(some), 1000, np.uint64), final=False)
        kept.append(growth)
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    record_property("bytes", (now, most))
    assert [len(growth) for growth in kept] == [5000, 5000]
    assert now < 10 << 20
    assert most < 24 << 20
