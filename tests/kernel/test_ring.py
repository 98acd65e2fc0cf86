"""The ring's reader against a producer in a memory file: every submitted record once, in order, and never one before its time."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.kernel import Records
from infrasight.kernel.ring import Taken
from infrasight.schema import KINDS, PROBES
from infrasight.schema.kinds import records_of
from infrasight.schema.layout import Layout, layout, stride
from tests.kernel.memory_ring import PAGE, MemoryRing, record_of

EVERYTHING = 1 << 30


def small(*kinds: str, pages: int = 1, start: int = 0, window: int = 1) -> MemoryRing:
    """A ring for the short records of these kinds."""
    return MemoryRing(*(layout(KINDS[kind]) for kind in kinds), pages=pages, start=start, window=window)


@pytest.fixture
def memory() -> Iterator[MemoryRing]:
    ring = small("ptrace")
    yield ring
    ring.close()


def produce(ring: MemoryRing, *numbers: int) -> None:
    for number in numbers:
        assert ring.produce(record_of(ring.layout, enter_ns=number, comm=f"n{number}".encode()))


def numbers_of(taken: Taken) -> list[int]:
    assert all(len(records) for _, records in taken)
    return [int(number) for _, records in taken for number in records["enter_ns"]]


def take(ring: MemoryRing, most_bytes: int = EVERYTHING) -> list[int]:
    return numbers_of(ring.ring.take(ring.ring.end(), most_bytes))


def bytes_of(records: Records) -> set[int]:
    """The distinct bytes of all members but what kind it is; a copy does not keep what lies between them."""
    return {byte for name, column in records.columns.items() if name != "probe" for byte in column.tobytes()}


def filled(layout: Layout, byte: int) -> bytes:
    """A record of a kind, and otherwise of this byte alone."""
    probe = layout.member("probe")
    record = bytearray([byte]) * layout.size
    record[probe.offset : probe.offset + probe.size] = PROBES.index(layout.kind.name).to_bytes(probe.size, "little")
    return bytes(record)


def test_an_empty_ring(memory: MemoryRing) -> None:
    assert memory.ring.fill() == 0
    assert memory.ring.take(memory.ring.end(), EVERYTHING) == []


def test_records_come_once_and_in_order(memory: MemoryRing) -> None:
    produce(memory, 1, 2, 3)
    assert memory.ring.fill() == 3 * memory.stride / PAGE
    assert take(memory) == [1, 2, 3]
    assert (memory.ring.fill(), memory.consumed) == (0, 3 * memory.stride)
    assert take(memory) == []
    produce(memory, 4)
    assert take(memory) == [4]


def test_what_was_taken_is_ours(memory: MemoryRing) -> None:
    """A copy: the kernel writes over what was given back."""
    produce(memory, 1)
    ((of, records),) = memory.ring.take(memory.ring.end(), EVERYTHING)
    assert of == memory.layout
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
    assert memory.consumed == memory.stride
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
    assert memory.consumed == memory.stride


def test_nothing_after_the_end_is_taken(memory: MemoryRing) -> None:
    produce(memory, 1, 2)
    end = memory.ring.end()
    produce(memory, 3)
    assert numbers_of(memory.ring.take(end, EVERYTHING)) == [1, 2]
    assert memory.ring.take(end, EVERYTHING) == []
    assert memory.ring.take(end - 5 * memory.stride, EVERYTHING) == []
    assert take(memory) == [3]


@pytest.mark.parametrize(("records", "expected"), [(0, 1), (1, 1), (3.9, 3), (7, 7), (100, 10)])
def test_at_most_so_many_bytes_are_taken(memory: MemoryRing, records: float, expected: int) -> None:
    produce(memory, *range(10))
    assert take(memory, int(records * memory.stride)) == list(range(expected))
    assert take(memory) == list(range(expected, 10))


def test_the_limit_counts_across_the_wrap() -> None:
    ring = small("ptrace", start=PAGE - 2 * 160)
    produce(ring, *range(6))
    assert (take(ring, 4 * ring.stride), ring.stride) == ([0, 1, 2, 3], 160)
    assert take(ring) == [4, 5]
    ring.close()


@pytest.mark.parametrize("kind", ["process", "execve", "connect", "open", "ptrace", "mount"])
def test_a_record_that_wraps_is_whole(kind: str) -> None:
    ring = small(kind)
    crossed = 0
    for number in range(500):
        position = ring.ring.end() % ring.size
        crossed += position + ring.stride > ring.size
        assert ring.produce(filled(ring.layout, number % 251 + 1))
        ((_, records),) = ring.ring.take(ring.ring.end(), EVERYTHING)
        assert bytes_of(records) == {number % 251 + 1}
    assert (crossed > 0) == bool(ring.size % ring.stride)
    ring.close()


def test_a_record_longer_than_a_page_wraps_too() -> None:
    ring = MemoryRing(*records_of("long"), pages=16, window=4)
    assert ring.stride > 2 * PAGE
    for number, of in enumerate(records_of("long") * 3, start=1):
        assert ring.produce(filled(of, number))
        ((found, records),) = ring.ring.take(ring.ring.end(), EVERYTHING)
        assert (found, bytes_of(records)) == (of, {number})
    ring.close()


def test_a_full_ring_fits() -> None:
    ring = small("open", start=7 * 320)
    while ring.produce(record_of(ring.layout, enter_ns=ring.ring.end())):
        pass
    assert ring.ring.fill() == 12 * 320 / PAGE, "the kernel never lets the last byte be taken"
    assert len(take(ring)) == 12
    ring.close()


KINDS_OF_A_RING = ("chmod", "mount", "umount")


def test_kinds_are_told_apart() -> None:
    """By what each says it is; oldest first within a kind, the kinds in the order of the ring's layouts."""
    ring = small(*KINDS_OF_A_RING, pages=4)
    layouts = {kind: layout(KINDS[kind]) for kind in KINDS_OF_A_RING}
    for number, kind in enumerate(["umount", "chmod", "chmod", "mount", "umount", "chmod"]):
        assert ring.produce(record_of(layouts[kind], enter_ns=number, flags=100 + number))
    taken = ring.ring.take(ring.ring.end(), EVERYTHING)
    assert [(of.name, records["enter_ns"].tolist(), records["flags"].tolist()) for of, records in taken] == [
        ("chmod", [1, 2, 5], [101, 102, 105]),
        ("mount", [3], [103]),
        ("umount", [0, 4], [100, 104]),
    ]
    assert ring.ring.fill() == 0
    ring.close()


def test_a_short_kind_is_as_far_apart_as_the_largest_of_the_ring() -> None:
    ring = small(*KINDS_OF_A_RING)
    assert ring.ring.stride == max(each.size for each in ring.ring.layouts) + 8 > layout(KINDS["umount"]).size + 8
    assert ring.produce(record_of(layout(KINDS["umount"]), enter_ns=1))
    assert ring.ring.fill() == ring.stride / PAGE
    ring.close()


def test_what_was_discarded_says_nothing_of_its_kind() -> None:
    """Nothing was written into it yet, so what lies there is whatever was there before."""
    ring = small(*KINDS_OF_A_RING, pages=4)
    for _ in range(20):
        position = ring.reserve()
        assert position is not None
        ring.discard(position)
        assert ring.produce(record_of(layout(KINDS["chmod"]), enter_ns=9))
        assert [(of.name, records["enter_ns"].tolist()) for of, records in ring.ring.take(ring.ring.end(), EVERYTHING)] == [("chmod", [9])]
    ring.close()


@pytest.mark.parametrize("kinds", [("ptrace",), ("open",), KINDS_OF_A_RING], ids=["ptrace", "open", "several"])
@pytest.mark.parametrize(("pages", "window"), [(1, 1), (4, 1), (4, 2), (2, 4)])
@pytest.mark.parametrize("seed", range(15))
def test_any_order_of_events(kinds: tuple[str, ...], pages: int, window: int, seed: int) -> None:
    """Programs reserve, then submit or discard in any order, while the reader looks whenever it likes, at old ends too."""
    chance = random.Random(seed)
    layouts = [layout(KINDS[kind]) for kind in kinds]
    ring = small(*kinds, pages=pages, window=window, start=chance.randrange(1 << 40) * stride(layouts))
    open_records: list[tuple[int, int]] = []
    fate: dict[int, bool] = {}
    of: dict[int, Layout] = {}
    taken: list[tuple[str, int]] = []
    ends = [ring.ring.end()]

    def look(end: int, most_bytes: int) -> None:
        taken.extend((each.name, int(number)) for each, records in ring.ring.take(end, most_bytes) for number in records["enter_ns"])

    for number in range(400):
        action = chance.random()
        if action < 0.4:
            position = ring.reserve()
            if position is not None:
                open_records.append((position, number))
                of[number] = chance.choice(layouts)
        elif action < 0.8 and open_records:
            position, mine = open_records.pop(chance.randrange(len(open_records)))
            fate[mine] = chance.random() < 0.8
            ring.submit(position, record_of(of[mine], enter_ns=mine, pid=mine)) if fate[mine] else ring.discard(position)
        else:
            ends.append(ring.ring.end())
            look(chance.choice(ends), chance.choice((0, 500, 2000, EVERYTHING)))
            oldest_open = min((number for _, number in open_records), default=1 << 30)
            assert all(number < oldest_open for _, number in taken)
    for position, mine in open_records:
        fate[mine] = True
        ring.submit(position, record_of(of[mine], enter_ns=mine))
    look(ring.ring.end(), EVERYTHING)
    for kind in kinds:
        submitted = sorted(number for number, kept in fate.items() if kept and of[number].name == kind)
        assert [number for name, number in taken if name == kind] == submitted
    assert len(taken) == sum(fate.values())
    assert (ring.ring.fill(), ring.consumed) == (0, ring.ring.end())
    ring.close()


def test_closing_gives_everything_back() -> None:
    ring = small("open")
    before = len(os.listdir("/proc/self/fd"))
    produce(ring, 1)
    taken = ring.ring.take(ring.ring.end(), EVERYTHING)
    ring.ring.close()
    ring.ring.close()
    assert len(os.listdir("/proc/self/fd")) < before
    assert numbers_of(taken) == [1]
    os.close(ring.fd)


def mappings(fd: int) -> int:
    """Of the file, in this process."""
    inode = os.fstat(fd).st_ino
    return sum(line.split()[4] == str(inode) for line in Path("/proc/self/maps").read_text().splitlines())


def test_of_a_large_ring_little_is_mapped() -> None:
    ring = small("ptrace", pages=64, window=2)
    mapped = mappings(ring.fd)
    for number in range(4):
        many = [1000 * number + each for each in range(1500)]
        produce(ring, *many)
        assert take(ring) == many
        assert mappings(ring.fd) == mapped + 1
    inode = os.fstat(ring.fd).st_ino
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if line.split()[4] == str(inode)]
    sizes = sorted(int(end, 16) - int(start, 16) for start, end in ranges)
    assert sizes[:3] == [PAGE, PAGE, 3 * PAGE], "the positions, and a window"
    ring.close()


def test_only_a_ring_that_has_something_is_mapped(memory: MemoryRing) -> None:
    positions = mappings(memory.fd)
    assert take(memory) == []
    assert mappings(memory.fd) == positions
    for rest in range(3):
        produce(memory, rest)
        assert take(memory) == [rest]
        assert mappings(memory.fd) == positions + 1
        memory.ring.rest()  # something was taken since the last time
        assert mappings(memory.fd) == positions + 1
        memory.ring.rest()
        assert mappings(memory.fd) == positions
