"""Maps of the running kernel, made here and read and written by the code under test."""

import ctypes
import os
import platform
import struct
from collections.abc import Callable, Iterator

import pytest

from infrasight.errors import KernelError
from infrasight.kernel.bpf import Map, attach_raw_tracepoint, possible_cpus
from infrasight.kernel.percpu import PerCpuCounters

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "bpf")]
HASH, ARRAY, PERCPU_ARRAY, LRU_HASH, LPM_TRIE = 1, 2, 6, 9, 11  # include/uapi/linux/bpf.h: enum bpf_map_type
NO_PREALLOC = 1
_BPF = {"x86_64": 321, "aarch64": 280}
Maker = Callable[..., Map]


def create(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> int:
    """A descriptor."""
    request = ctypes.create_string_buffer(struct.pack("<5I", kind, key_bytes, value_bytes, entries, flags), 128)
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(_BPF[platform.machine()], 0, request, 128))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


@pytest.fixture
def make() -> Iterator[Maker]:
    made: list[Map] = []

    def a_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int = 0) -> Map:
        made.append(Map(create(kind, key_bytes, value_bytes, entries, flags), key_bytes, value_bytes))
        return made[-1]

    yield a_map
    for each in made:
        each.close()


def word(number: int, size: int = 4) -> bytes:
    return number.to_bytes(size, "little")


def test_what_is_put_in_is_found(make: Maker) -> None:
    table = make(HASH, 4, 24, 10)
    assert table.lookup(word(1)) is None
    table.update(word(1), b"one".ljust(24, b"\0"))
    table.update(word(2), bytes(range(24)))
    assert (table.lookup(word(1)), table.lookup(word(2))) == (b"one".ljust(24, b"\0"), bytes(range(24)))
    table.update(word(1), b"x" * 24)
    assert table.lookup(word(1)) == b"x" * 24


def test_what_is_taken_out_is_gone(make: Maker) -> None:
    table = make(HASH, 8, 8, 10)
    table.update(word(7, 8), word(70, 8))
    table.delete(word(7, 8))
    table.delete(word(7, 8))
    assert table.lookup(word(7, 8)) is None
    assert table.all_keys() == []


def test_a_full_map(make: Maker) -> None:
    table = make(HASH, 4, 4, 3)
    for number in range(3):
        table.update(word(number), word(number))
    with pytest.raises(KernelError) as failure:
        table.update(word(3), word(3))
    assert isinstance(failure.value.__cause__, OSError)
    table.update(word(2), word(9))
    assert sorted(table.all_keys()) == [word(0), word(1), word(2)]


@pytest.mark.parametrize("count", [0, 1, 7, 1009])
def test_all_keys(make: Maker, count: int) -> None:
    table = make(HASH, 16, 4, 2048)
    wanted = {word(number * 7919, 16) for number in range(count)}
    for key in wanted:
        table.update(key, word(1))
    found = table.all_keys()
    assert (len(found), set(found)) == (count, wanted)


def test_keys_of_a_trie(make: Maker) -> None:
    """In the format of networks: a number of bits, and the address."""
    table = make(LPM_TRIE, 20, 16, 100, NO_PREALLOC)
    wanted = {word(bits) + bytes(range(bits // 8)).ljust(16, b"\0") for bits in range(0, 129, 8)}
    for key in wanted:
        table.update(key, bytes(16))
    assert set(table.all_keys()) == wanted
    table.delete(word(0) + bytes(16))
    assert len(table.all_keys()) == len(wanted) - 1


@pytest.mark.parametrize(("kind", "most"), [(ARRAY, 1), (ARRAY, 3), (ARRAY, 101), (ARRAY, 1000), (HASH, 97), (HASH, 4096), (LRU_HASH, 4096)])
def test_batches(make: Maker, kind: int, most: int) -> None:
    """Everything once, with nothing that was not put in, however many come at a time."""
    table = make(kind, 4, 8, 101 if kind == ARRAY else 1000)
    wanted = {word(number): word(number * 1000003, 8) for number in range(101)}
    for key, value in wanted.items():
        table.update(key, value)
    found: list[tuple[bytes, bytes]] = []
    for keys, values in table.batches(most):
        assert len(keys) == len(values) <= most
        found += [(key.tobytes(), value.tobytes()) for key, value in zip(keys, values, strict=True)]
    assert len(found) == len(wanted)
    assert dict(found) == wanted


def test_batches_of_an_empty_map(make: Maker) -> None:
    assert sum(len(keys) for keys, _ in make(HASH, 4, 8, 10).batches(5)) == 0


def test_what_is_no_map() -> None:
    table = Map(os.memfd_create("no map"), 4, 4)
    for attempt in (lambda: table.lookup(word(0)), lambda: table.update(word(0), word(0)), lambda: table.delete(word(0)), table.all_keys):
        with pytest.raises(KernelError, match="Invalid argument"):
            attempt()
    with pytest.raises(KernelError):
        list(table.batches(1))
    table.close()
    table.close()
    assert table.fd == -1


def _refused(map: Map, most: int) -> None:
    raise KernelError("Unknown error 524")


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
def test_counters_are_summed_over_all_processors(monkeypatch: pytest.MonkeyPatch, together: bool) -> None:
    monkeypatch.setattr(Map, "lookup" if together else "batches", _refused)
    counters = PerCpuCounters(create(PERCPU_ARRAY, 4, 8, 3), 3)
    shared = Map(os.dup(counters._map.fd), 4, 8 * possible_cpus())
    for index in range(3):
        shared.update(word(index), b"".join(word((cpu + 1) * 10**index, 8) for cpu in range(possible_cpus())))
    total = sum(range(1, possible_cpus() + 1))
    assert counters.read().tolist() == [total, total * 10, total * 100]
    shared.close()
    counters.close()


def test_a_tracepoint_that_is_not_there() -> None:
    with pytest.raises(KernelError, match=r"^no_such_event: not attached: "):
        attach_raw_tracepoint(-1, "no_such_event")
