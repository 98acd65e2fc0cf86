"""Record layouts: the compiler, numpy and our arithmetic agree byte for byte."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from infrasight.schema import KINDS, PROBES, Field, Kind, Slot
from infrasight.schema.c import declarations, shapes, struct
from infrasight.schema.columns import Length, Source
from infrasight.schema.kinds import BUFFERS, records_of
from infrasight.schema.layout import CTYPES, HEAD_BYTES, RECORD_HEADER_BYTES, Layout, Member, layout, layouts, payload_bytes, stride
from infrasight.schema.parts import HEAD

ALL = [each for name in PROBES for each in layouts(KINDS[name])]
each_layout = pytest.mark.parametrize("record", ALL, ids=lambda each: each.name)
TYPES = "#include <stdint.h>\n" + "".join(f"typedef {'u' * sign}int{bits}_t {'us'[1 - sign]}{bits};\n" for bits in (8, 16, 32, 64) for sign in (1, 0))


@each_layout
def test_members_follow_each_other_aligned(record: Layout) -> None:
    end = 0
    for member in record.members:
        alignment = np.dtype(CTYPES[member.ctype]).itemsize if member.ctype in CTYPES else 1
        assert member.offset % alignment == 0
        assert 0 <= member.offset - end < 8, "no more padding than alignment asks for"
        end = member.offset + member.size
    assert 0 <= record.size - end < 8
    assert record.size % 8 == 0


def test_sizes_that_were_chosen() -> None:
    """Memory of the kernel and time to read: what grows is to grow on purpose."""
    assert [each.name for each in ALL][:7] == ["execve", "execve_long", "open", "open_medium", "open_long", "connect", "connect_medium"]
    assert (HEAD_BYTES, stride(records_of("open")), stride(records_of("process"))) == (120, 320, 624)
    assert all(4096 < each.size < 20_480 for each in ALL if each.length is Length.LONG)
    assert all(each.size < 1500 for each in ALL if each.length is Length.MEDIUM)
    assert all(each.size < 1024 for each in ALL if each.length is Length.SHORT and not each.kind.account)


@pytest.mark.parametrize("ring", BUFFERS)
def test_records_of_a_ring_are_as_far_apart_as_the_largest_needs(ring: str) -> None:
    records = records_of(ring)
    assert stride(records) == RECORD_HEADER_BYTES + max(each.size for each in records)
    assert stride(records) % 8 == 0, "or the kernel would round it up"


@each_layout
def test_every_record_begins_with_the_head(record: Layout) -> None:
    """In 8-byte words that the programs copy, the fields of the kind after it."""
    assert [(member.name, member.ctype) for member in record.members[: len(HEAD)]] == [(field.name, field.ctype) for field in HEAD]
    after = next((member for member in record.members[len(HEAD) :] if member.name != "_padding"), None)
    assert after is None or after.offset == HEAD_BYTES
    first = next((member.offset for member in record.members if member.name.endswith("_len")), record.size)
    assert first == HEAD_BYTES + payload_bytes(record.kind)


@each_layout
def test_areas_can_be_read_as_words(record: Layout) -> None:
    """The kernel reads them so, and the node masks them so, but for what a probe reads itself."""
    uneven = {slot.name for slot in record.kind.slots if slot.source is Source.OWN}
    for area in record.kind.areas:
        member = record.member(area.name)
        assert member.size == area.room(record.length)
        assert area.name in uneven or member.size % 8 == 0


def test_kinds_of_one_shape_look_alike() -> None:
    """One program makes the records of all of them."""
    found = shapes()
    assert sorted(kind.name for shape in found for kind in shape.kinds) == sorted(name for name in PROBES if not KINDS[name].composed)
    for shape in found:
        plain = [[(m.ctype, m.offset) for m in layout(kind).members if m.offset >= HEAD_BYTES + payload_bytes(kind)] for kind in shape.kinds]
        assert plain == plain[:1] * len(plain)
        assert len({(kind.ring, kind.lengths, payload_bytes(kind)) for kind in shape.kinds}) == 1
    places = [place for shape in found for place in shape.programs.values()]
    assert len(set(places)) == len(places)


@pytest.mark.needs("gcc")
def test_any_order_of_fields_is_laid_out_as_c_does(tmp_path: Path) -> None:
    """The compiler says so by the assertions beside the struct."""
    ctypes = ["u16", "u64", "char[3]", "u32", "u8[5]", "s64", "u8[1]", "s16", "s32", "u8[16]", "u16"]
    made = []
    for first in range(len(ctypes)):
        fields = tuple(Field(f"f{place}", ctype, "") for place, ctype in enumerate(ctypes[first:] + ctypes[:first]))
        made.append(layout(Kind(f"kind{first}", 1, "", (), fields, (Slot("s", 3, 3, ""),))))
    source = tmp_path / "orders.c"
    source.write_text(TYPES + "\n".join(struct(each) for each in made))
    done = subprocess.run(["gcc", "-fsyntax-only", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_all_lengths_begin_alike() -> None:
    for name in PROBES:
        first, *more = layouts(KINDS[name])
        areas = len(KINDS[name].areas)
        common = list(first.members[: len(first.members) - areas])
        assert len(common) >= len(HEAD)
        for each in more:
            assert list(each.members[: len(each.members) - areas]) == common


def test_there_is_no_record_of_what_the_node_makes_itself() -> None:
    with pytest.raises(ValueError, match="loss has no such record"):
        layout(KINDS["loss"])
    with pytest.raises(ValueError, match="ptrace has no such record"):
        layout(KINDS["ptrace"], Length.LONG)
    with pytest.raises(KeyError):
        layout(KINDS["open"]).member("nothing")


@pytest.mark.parametrize("names", [PROBES, ("process",)])
@pytest.mark.needs("gcc")
def test_the_header_compiles(names: tuple[str, ...], tmp_path: Path) -> None:
    source = tmp_path / "header.c"
    source.write_text(f"{TYPES}#define BPF_RINGBUF_OUTPUT(name, pages) enum {{ name = pages }}\n{declarations(names)}")
    done = subprocess.run(["gcc", "-Wall", "-Werror", "-fsyntax-only", source], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _value(number: int, member: Member) -> int | bytes:
    """Something that no other member of the record holds, negative where it may be; strings not full."""
    if member.ctype not in CTYPES:
        return bytes((number * 7 + k) % 255 + 1 for k in range(member.size - 3))
    dtype = np.dtype(CTYPES[member.ctype])
    return -1000 - number if dtype.kind == "i" else 0x0102030405060708 * (number + 1) % 256**dtype.itemsize


def _assignment(member: Member, value: int | bytes) -> str:
    if isinstance(value, int):
        return f"record.{member.name} = ({member.ctype}){value}{'ull' if value >= 0 else 'll'};"
    return f"memcpy(record.{member.name}, (unsigned char[]){{{','.join(map(str, value))}}}, {len(value)});"


@pytest.mark.needs("gcc")
def test_numpy_reads_what_c_writes(tmp_path: Path) -> None:
    """Each struct filled by a C program, each member read back by name."""
    body, values = [], {}
    for record in ALL:
        values[record.name] = [(member, _value(number, member)) for number, member in enumerate(record.members)]
        fill = "\n".join(_assignment(*each) for each in values[record.name])
        body.append(f"{{ struct {record.name} record = {{0}}; {fill} fwrite(&record, sizeof(record), 1, stdout); }}")
    structs = "\n".join(struct(record) for record in ALL)
    source, binary = tmp_path / "dump.c", tmp_path / "dump"
    source.write_text(f"#include <stdio.h>\n#include <string.h>\n{TYPES}{structs}\nint main(void) {{\n{''.join(body)}\nreturn 0; }}\n")
    subprocess.run(["gcc", "-o", binary, source], check=True)
    written, at = subprocess.run([binary], capture_output=True, check=True).stdout, 0
    for record in ALL:
        data = (1 << 31 | 12345).to_bytes(RECORD_HEADER_BYTES, "little") + written[at : at + record.size]
        apart = stride(records_of(record.ring))
        (read,) = np.frombuffer(data.ljust(apart, b"\xff"), record.dtype(apart), 1)
        at += record.size
        assert read["_length"] == 1 << 31 | 12345
        for member, value in values[record.name]:
            found = read[member.name]
            assert (found if isinstance(value, int) else bytes(found).rstrip(b"\0")) == value, (record.name, member.name)
    assert at == len(written)
