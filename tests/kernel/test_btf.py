"""BTF: against blobs made by hand, against the running kernel, and against rubbish."""

import contextlib
import random
import struct
from pathlib import Path

import pytest

from infrasight.errors import KernelError
from infrasight.kernel.btf import Btf
from infrasight.kernel.offsets import OFFSETS, constants
from tests.kernel.blob import ARRAY, CONST, DATASEC, DECL_TAG, ENUM, ENUM64, FLOAT, FUNC, FUNC_PROTO, FWD, PTR, TYPE_TAG, TYPEDEF, UNION, VAR, Blob


def a_kernel() -> bytes:
    """A bit of everything, and between it the structures looked for: what is skipped wrongly moves them."""
    blob = Blob()
    number = blob.add_int()
    blob.add(PTR, size=number)
    blob.add(ARRAY, tail=bytes(12))
    names = [blob.string(name) for name in ("red", "green", "none")]
    blob.add(ENUM, "colour", 4, members=3, tail=struct.pack("<IiIiIi", names[0], 0, names[1], 7, names[2], -1))
    blob.add(ENUM64, "big", 8, members=2, tail=bytes(24))
    blob.add(FWD, "unseen")
    blob.add(FLOAT, "double", 8)
    blob.add(VAR, "counter", number, tail=bytes(4))
    blob.add(DATASEC, ".data", 8, members=2, tail=bytes(24))
    blob.add(DECL_TAG, "tag", number, tail=bytes(4))
    prototype = blob.add(FUNC_PROTO, size=0, members=3, tail=bytes(24))
    blob.add(FUNC, "tracer", prototype)
    pointer = blob.add(PTR, size=prototype)
    blob.add(TYPEDEF, "btf_trace_thing", pointer)
    blob.add(TYPEDEF, "direct_thing", prototype)
    blob.add(TYPEDEF, "no_function", number)
    inner = blob.add_struct("", 8, [("x", number, 0), ("y", number, 32)])
    either = blob.add_struct("", 8, [("whole", number, 0), ("", inner, 0)], kind=UNION)
    named = blob.add_struct("pair", 16, [("first", number, 0), ("second", number, 64)])
    alias = blob.add(TYPEDEF, "pair_t", blob.add(CONST, size=blob.add(TYPE_TAG, "rcu", named)))
    blob.add_struct("outer", 64, [("head", number, 0), ("", either, 128), ("pair", alias, 256), ("next", pointer, 384)])
    blob.add_struct("bits", 8, [("a", number, 3 << 24 | 0), ("b", number, 5 << 24 | 3), ("c", number, 32)], bitfields=True)
    blob.add_struct("outer", 1, [])
    blob.add_struct("sole", 4, [("member", number, 0)], kind=UNION)
    return blob.bytes()


def test_members_are_found() -> None:
    btf = Btf(a_kernel())
    assert btf.size("outer") == 64, "of two with one name, the first"
    assert (btf.offset("outer", "head"), btf.offset("outer", "pair")) == (0, 32)
    assert (btf.offset("pair", "second"), btf.size("pair")) == (8, 16)


def test_anonymous_members_are_looked_into() -> None:
    btf = Btf(a_kernel())
    assert (btf.offset("outer", "whole"), btf.offset("outer", "x"), btf.offset("outer", "y")) == (16, 16, 20)


def test_a_path_goes_through_typedefs_and_qualifiers() -> None:
    assert Btf(a_kernel()).offset("outer", "pair.second") == 40


def test_bitfields_lie_in_their_byte() -> None:
    btf = Btf(a_kernel())
    assert [btf.offset("bits", name) for name in "abc"] == [0, 0, 4]


@pytest.mark.parametrize("path", ["nothing", "head.x", "pair.third", "next.first", "pair.second.third"])
def test_a_member_that_is_not_there(path: str) -> None:
    with pytest.raises(KernelError, match=f"struct outer has no member {path}$"):
        Btf(a_kernel()).offset("outer", path)


@pytest.mark.parametrize("name", ["nothing", "pair_t", "sole", "unseen"])
def test_a_structure_that_is_not_there(name: str) -> None:
    with pytest.raises(KernelError, match=f"this kernel has no struct {name}$"):
        Btf(a_kernel()).size(name)


def test_arguments_are_counted() -> None:
    btf = Btf(a_kernel())
    assert [btf.arguments(name) for name in ("btf_trace_thing", "direct_thing", "no_function", "nothing")] == [3, 3, 0, 0]


def test_enumerators() -> None:
    btf = Btf(a_kernel())
    assert [btf.enumerator("colour", name) for name in ("red", "green", "none", "blue")] == [0, 7, 2**32 - 1, None]
    assert [btf.enumerator(name, "red") for name in ("nothing", "pair", "pair_t")] == [None, None, None]


@pytest.mark.parametrize("raw", [b"", b"\x9f\xeb", bytes(24), bytes(4096), b"\x7fELF" + bytes(100), b"\xeb\x9f" + a_kernel()[2:]])
def test_what_is_no_btf_is_refused(raw: bytes) -> None:
    with pytest.raises(KernelError, match="cannot be understood"):
        Btf(raw)


def test_cut_off_anywhere_it_is_refused() -> None:
    whole = a_kernel()
    Btf(whole)
    for length in range(len(whole)):
        with pytest.raises(KernelError, match="cannot be understood"):
            Btf(whole[:length])


def test_damage_is_found_or_does_no_harm() -> None:
    """Whatever is asked of a damaged blob ends, with an answer or a KernelError."""
    whole, chance = a_kernel(), random.Random(20)
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 4, 8, 127, 255, chance.randrange(256)))
        with contextlib.suppress(KernelError):
            btf = Btf(bytes(damaged))
            btf.arguments("btf_trace_thing")
            btf.offset("outer", "pair.second")
            btf.enumerator("colour", "none")


def test_a_kernel_without_btf(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"not readable at .*absent: No such file"):
        Btf.of_kernel(tmp_path / "absent")


@pytest.mark.needs("btf")
def test_the_running_kernel() -> None:
    """Offsets that no kernel for a 64-bit machine can have otherwise, and all constants within their structures."""
    btf = Btf.of_kernel()
    assert (btf.offset("list_head", "next"), btf.offset("list_head", "prev"), btf.size("list_head")) == (0, 8, 16)
    assert (btf.offset("upid", "nr"), btf.size("upid")) == (0, 16)
    assert (btf.offset("sockaddr", "sa_family"), btf.offset("iovec", "iov_len")) == (0, 8)
    assert btf.offset("pt_regs", "sp") > 0
    assert btf.offset("task_struct", "tgid") == btf.offset("task_struct", "pid") + 4
    assert btf.offset("mm_struct", "arg_end") == btf.offset("mm_struct", "arg_start") + 8
    assert btf.arguments("btf_trace_sched_process_fork") == 3, "private data, parent, child"
    numbers = constants(btf)
    for name, (structure, _) in OFFSETS.items():
        assert 0 <= numbers[name] <= btf.size(structure)
