"""The ring's reader against a producer in a memory file: every submitted record once, in order, and never one before its time."""

import dataclasses
import os
import random
from collections.abc import Iterator

import pytest

from infrasight.kernel import Records
from infrasight.schema import KINDS
from infrasight.schema.layout import Layout, layout
from tests.kernel.memory_ring import PAGE, MemoryRing, record_of

EVERYTHING = 1 << 30


def small(kind: str, *, pages: int = 1, long: bool = False) -> Layout:
    size = pages * PAGE
    return layout(dataclasses.replace(KINDS[kind], ring_bytes=size, long_ring_bytes=size), long=long)


@pytest.fixture
def memory() -> Iterator[MemoryRing]:
    ring = MemoryRing(small("process"))
    yield ring
    ring.close()


def produce(ring: MemoryRing, *numbers: int) -> None:
    for number in numbers:
        assert ring.produce(record_of(ring.layout, enter_ns=number, comm=f"n{number}".encode()))


def numbers_of(taken: list[Records]) -> list[int]:
    assert all(len(records) for records in taken)
    return [int(number) for records in taken for number in records["enter_ns"]]


def take(ring: MemoryRing, most_bytes: int = EVERYTHING) -> list[int]:
    return numbers_of(ring.ring.take(ring.ring.end(), most_bytes))


def bytes_of(records: Records) -> set[int]:
    """The distinct bytes of all members; a copy does not keep what lies between them."""
    return {byte for column in records.columns.values() for byte in column.tobytes()}


def test_an_empty_ring(memory: MemoryRing) -> None:
    assert memory.ring.fill() == 0
    assert memory.ring.take(memory.ring.end(), EVERYTHING) == []


def test_records_come_once_and_in_order(memory: MemoryRing) -> None:
    produce(memory, 1, 2, 3)
    assert memory.ring.fill() == 3 * memory.layout.stride / PAGE
    assert take(memory) == [1, 2, 3]
    assert (memory.ring.fill(), memory.consumed) == (0, 3 * memory.layout.stride)
    assert take(memory) == []
    produce(memory, 4)
    assert take(memory) == [4]


def test_what_was_taken_is_ours(memory: MemoryRing) -> None:
    """A copy: the kernel writes over what was given back."""
    produce(memory, 1)
    (records,) = memory.ring.take(memory.ring.end(), EVERYTHING)
    for number in range(100):
        produce(memory, 1000 + number)
        take(memory)
    assert (records["enter_ns"].tolist(), records["comm"].tolist()) == ([1], [b"n1"])


def test_a_busy_record_stops_the_reader(memory: MemoryRing) -> None:
    produce(memory, 1)
    busy = memory.reserve()
    assert busy is not None
    produce(memory, 3)
    assert take(memory) == [1]
    assert memory.consumed == memory.layout.stride
    assert take(memory) == []
    memory.submit(busy, record_of(memory.layout, enter_ns=2))
    assert take(memory) == [2, 3]


def test_discarded_records_are_left_out(memory: MemoryRing) -> None:
    for number in range(5):
        position = memory.reserve()
        assert position is not None
        memory.discard(position) if number in (0, 3, 4) else memory.submit(position, record_of(memory.layout, enter_ns=number))
    assert take(memory) == [1, 2]
    assert memory.ring.fill() == 0


def test_only_discarded_records_are_nothing(memory: MemoryRing) -> None:
    position = memory.reserve()
    assert position is not None
    memory.discard(position)
    assert memory.ring.take(memory.ring.end(), EVERYTHING) == []
    assert memory.consumed == memory.layout.stride


def test_nothing_after_the_end_is_taken(memory: MemoryRing) -> None:
    produce(memory, 1, 2)
    end = memory.ring.end()
    produce(memory, 3)
    assert numbers_of(memory.ring.take(end, EVERYTHING)) == [1, 2]
    assert memory.ring.take(end, EVERYTHING) == []
    assert memory.ring.take(end - 5 * memory.layout.stride, EVERYTHING) == []
    assert take(memory) == [3]


@pytest.mark.parametrize(("records", "expected"), [(0, 1), (1, 1), (3.9, 3), (7, 7), (100, 10)])
def test_at_most_so_many_bytes_are_taken(memory: MemoryRing, records: float, expected: int) -> None:
    produce(memory, *range(10))
    assert take(memory, int(records * memory.layout.stride)) == list(range(expected))
    assert take(memory) == list(range(expected, 10))


def test_the_limit_counts_across_the_wrap() -> None:
    ring = MemoryRing(small("process"), start=PAGE - 2 * 120)
    produce(ring, *range(6))
    assert take(ring, 4 * 120) == [0, 1, 2, 3]
    assert take(ring) == [4, 5]
    ring.close()


@pytest.mark.parametrize("kind", ["process", "execve", "connect", "open"])
def test_a_record_that_wraps_is_whole(kind: str) -> None:
    ring = MemoryRing(small(kind))
    crossed = 0
    for number in range(500):
        position = ring.ring.end() % ring.size
        crossed += position + ring.layout.stride > ring.size
        assert ring.produce(bytes([number % 251 + 1]) * ring.layout.size)
        (records,) = ring.ring.take(ring.ring.end(), EVERYTHING)
        assert bytes_of(records) == {number % 251 + 1}
    assert (crossed > 0) == bool(ring.size % ring.layout.stride)
    ring.close()


def test_a_record_longer_than_a_page_wraps_too() -> None:
    ring = MemoryRing(small("execve", pages=4, long=True))
    for number in range(1, 6):
        assert ring.produce(number.to_bytes(1, "little") * ring.layout.size)
        (records,) = ring.ring.take(ring.ring.end(), EVERYTHING)
        assert bytes_of(records) == {number}
    ring.close()


def test_a_full_ring_fits() -> None:
    ring = MemoryRing(small("open"), start=7 * 256)
    while ring.produce(record_of(ring.layout, enter_ns=ring.ring.end())):
        pass
    assert ring.ring.fill() == 15 / 16, "the kernel never lets the last byte be taken"
    assert len(take(ring)) == 15
    ring.close()


@pytest.mark.parametrize("kind", ["process", "open"])
@pytest.mark.parametrize("seed", range(30))
def test_any_order_of_events(kind: str, seed: int) -> None:
    """Programs reserve, then submit or discard in any order, while the reader looks whenever it likes, at old ends too."""
    chance = random.Random(seed)
    ring = MemoryRing(small(kind), start=chance.randrange(1 << 40) * small(kind).stride)
    open_records: list[tuple[int, int]] = []
    fate: dict[int, bool] = {}
    taken: list[int] = []
    ends = [ring.ring.end()]
    for number in range(400):
        action = chance.random()
        if action < 0.4:
            position = ring.reserve()
            if position is not None:
                open_records.append((position, number))
        elif action < 0.8 and open_records:
            position, mine = open_records.pop(chance.randrange(len(open_records)))
            fate[mine] = chance.random() < 0.8
            ring.submit(position, record_of(ring.layout, enter_ns=mine, pid=mine)) if fate[mine] else ring.discard(position)
        else:
            ends.append(ring.ring.end())
            taken += numbers_of(ring.ring.take(chance.choice(ends), chance.choice((0, 500, 2000, EVERYTHING))))
            oldest_open = min((number for _, number in open_records), default=1 << 30)
            assert all(number < oldest_open for number in taken)
    for position, mine in open_records:
        fate[mine] = True
        ring.submit(position, record_of(ring.layout, enter_ns=mine))
    taken += take(ring)
    assert taken == sorted(number for number, submitted in fate.items() if submitted)
    assert (ring.ring.fill(), ring.consumed) == (0, ring.ring.end())
    ring.close()


def test_closing_gives_everything_back() -> None:
    ring = MemoryRing(small("open"))
    before = len(os.listdir("/proc/self/fd"))
    produce(ring, 1)
    taken = ring.ring.take(ring.ring.end(), EVERYTHING)
    ring.ring.close()
    ring.ring.close()
    assert len(os.listdir("/proc/self/fd")) < before
    assert numbers_of(taken) == [1]
    os.close(ring.fd)
