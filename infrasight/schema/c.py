"""The C that derives from the declarations, and that bpf/ is compiled with: structs, ring buffers, numbers, the way in and out of each record, and a
program for all records of one shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from infrasight.schema.columns import Buffer, Kind, Length, Slot, Source
from infrasight.schema.kinds import BUFFERS, KINDS, LOSS_REASONS, PROBES, filled_bytes, records_of
from infrasight.schema.layout import ARRAY, HEAD_BYTES, Layout, layouts, payload_bytes, stride
from infrasight.schema.layout import RECORD_HEADER_BYTES as HEADER
from infrasight.schema.parts import HEAD, SOCKET

STEPS = {Length.SHORT: 24, Length.MEDIUM: 48, Length.LONG: 128}
"""How far up a directory tree records go; mount points count too."""
RING_NUMBERS = {f"{name}_ring": 1 << 20 | number for number, name in enumerate(BUFFERS)}
"""What the rings are called where BCC has no function of its own for what is asked of them; whoever compiles puts the maps in (`kernel.compiler`)."""
WAKERS = 16
"""How many records in a row wake up the reader when a ring has `filled_bytes`."""
OWN_PATH = 8
"""As in bpf/include/draft.h: the path is in the draft's own bytes, and the second slot is its place."""
_SOURCES = {Source.USER: ("u64", "string"), Source.PATH: ("struct path", "path"), Source.PLACE: ("struct place", "place")}
"""C type of what a slot is read from, and its member of union source."""


class Shape:
    """Kinds whose records look alike: the same ring, the same slots, whatever they are called. `number` tells shapes apart."""

    def __init__(self, number: int, kinds: list[Kind]) -> None:
        self.number, self.kinds, self.model = number, kinds, kinds[0]

    @property
    def functions(self) -> dict[Length, str]:
        """The C functions that make records of this shape, by their lengths."""
        return {length: f"finish_{self.number}_{length.value}" for length in self.model.lengths}

    @property
    def index(self) -> int:
        """Place of the first of them in the map `programs`."""
        return len(Length) * self.number

    @property
    def programs(self) -> dict[str, int]:
        """The functions and their places, one behind the other."""
        return {function: self.index + place for place, function in enumerate(self.functions.values())}


def _look(kind: Kind) -> tuple[object, ...]:
    rooms = [(slot.source, *((short, long) for _, short, long in slot.rooms)) for slot in kind.slots]
    return (kind.ring, payload_bytes(kind), *rooms)


def shapes(names: Iterable[str] = PROBES) -> list[Shape]:
    """The shapes of the kinds named, leaving out those that make their records themselves."""
    alike: dict[tuple[object, ...], list[Kind]] = {}
    for name in names:
        if not KINDS[name].composed:
            alike.setdefault(_look(KINDS[name]), []).append(KINDS[name])
    return [Shape(number, kinds) for number, kinds in enumerate(alike.values())]


def _member(name: str, ctype: str) -> str:
    array = ARRAY.fullmatch(ctype)
    return f"    {array[1]} {name}[{array[2]}];" if array else f"    {ctype} {name};"


def struct(layout: Layout) -> str:
    """The C struct. The compiler asserts its size and every offset, so a program that loads is proof that the numpy dtype reads what it writes."""
    proofs = [f"sizeof(struct {layout.name}) == {layout.size}"]
    proofs += [f"__builtin_offsetof(struct {layout.name}, {member.name}) == {member.offset}" for member in layout.members]
    asserts = [f'_Static_assert({proof}, "layout of {layout.name}");' for proof in proofs]
    return "\n".join([f"struct {layout.name} {{", *(_member(member.name, member.ctype) for member in layout.members), "};", *asserts])


def declarations(names: Iterable[str] = PROBES) -> str:
    """What comes before bpf/include: numbers of probes and reasons, the rings, and for each probe named its structs and the sizes of its areas."""
    kinds = [KINDS[name] for name in names]
    numbers = {f"PROBE_{name.upper()}": number for number, name in enumerate(PROBES)}
    numbers |= {f"LOST_{reason.upper()}": number for number, reason in enumerate(LOSS_REASONS)}
    numbers |= {"PROBES": len(PROBES), "LOSS_REASONS": len(LOSS_REASONS), "PAYLOAD_MAX": max(map(payload_bytes, kinds))}
    numbers |= {"SLOTS_MAX": max([1, *(len(kind.slots) for kind in kinds)])}
    numbers["OWN_MAX"] = max([8, *(slot.short for kind in kinds if not kind.composed for slot in kind.slots if slot.source is Source.OWN)])
    parts = []
    for name, fields in (("head", HEAD), ("socket_fields", SOCKET)):
        parts += [f"struct {name} {{", *(_member(field.name, field.ctype) for field in fields), "};"]
    for kind in kinds:
        for area in kind.areas:
            numbers |= {f"{area.name}_SHORT_{kind.name}".upper(): area.short, f"{area.name}_LONG_{kind.name}".upper(): area.long}
        parts += [struct(each) for each in layouts(kind)]
    for buffer in BUFFERS.values():
        if records := records_of(buffer.name):
            numbers[_bytes(buffer.name)] = stride(records) - HEADER
            parts.append(f"BPF_RINGBUF_OUTPUT({buffer.name}_ring, {buffer.bytes // 4096});")
    return "\n".join([*(f"#define {name} {number}" for name, number in numbers.items()), *parts]) + "\n"


def _wakeup(buffer: Buffer, record_bytes: int) -> str:
    """Whether the record that is submitted now wakes up the reader, which else looks at its own pace: a wake-up for each is most of what other
    tracers cost. Several do when the ring has `filled_bytes`, since records of several processors can pass the mark at once; and the first does that
    it waits for."""
    return f"""
static __always_inline u64 {buffer.name}_wakeup(void)
{{
    u64 above = bpf_ringbuf_query((void *)bpf_pseudo_fd(1, {RING_NUMBERS[buffer.name + "_ring"]}), BPF_RB_AVAIL_DATA) - {filled_bytes(buffer.bytes)};
    return above < {WAKERS * record_bytes} || is_awaited() ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}}
"""


def _bytes(ring: str) -> str:
    return f"{ring.upper()}_RECORD_BYTES"


def _begin(kind: Kind) -> str:
    name = kind.name
    return f"""
/* The fields of the call that ends now, to be filled in and submitted; 0 when it is not to be told. */
static __always_inline struct {name} *{name}_begin(struct call *call, s64 ret)
{{
    struct draft *draft = draft_begin(PROBE_{name.upper()}, call, ret, {payload_bytes(kind)});
    return draft ? (struct {name} *)draft->record : 0;
}}
"""


def _submit(kind: Kind, shape: Shape) -> str:
    """Saying where the strings are, and going on to the program of the shape: what comes after it in a probe is not run."""
    slots = [(place, slot) for place, slot in enumerate(kind.slots) if slot.source is not Source.OWN]
    arguments = "".join(f", {_SOURCES[slot.source][0]} {slot.name}" for _, slot in slots)
    puts = "".join(f"    draft->sources[{place}].{_SOURCES[slot.source][1]} = {slot.name};\n" for place, slot in slots)
    paths = sum(1 << place for place, slot in slots if slot.source is Source.PATH)
    if [slot.name for slot in kind.slots] == ["path", "path_place"]:
        paths = OWN_PATH
        puts += f"    draft->own_whole = ((struct {kind.name} *)draft->record)->path_whole;\n"
    return f"""
static __always_inline void {kind.name}_submit(struct bpf_raw_tracepoint_args *ctx{arguments})
{{
    struct draft *draft = draft_of_cpu();
    if (!draft)
        return;
{puts}    draft_submit(ctx, draft, {shape.index}, {paths});
}}
"""


def _read(slot: Slot, place: int, steps: int) -> str:
    """Fill one slot of `record`; `fits` becomes 0 when there is no room."""
    name, source = slot.name, f"draft->sources[{place}].{_SOURCES.get(slot.source, ('', ''))[1]}"
    if slot.source is Source.OWN:
        return (
            f"    record->{name}_len = draft->own_length;\n    bpf_probe_read_kernel(record->{name}, {slot.short}, draft->own);\n"
        )
    if slot.source is Source.PLACE:
        walk = f"walk(record->{name}, sizeof(record->{name}), &record->{name}_len, {source}, {steps})"
        return f"    record->{name}_cut = !{walk};\n    fits &= !record->{name}_cut;\n"
    string = f"{source}.string" if slot.source is Source.PATH else source
    lines = f"    fits &= put_string(record->{name}, sizeof(record->{name}), &record->{name}_len, {string});\n"
    if slot.source is Source.PATH:
        first = f"*(volatile u32 *)&record->{name}_len ? record->{name}[0] : 0"
        lines += f"""    record->{name}_whole = place_flags({source});
    if (!walk_path(record->{name}_place, sizeof(record->{name}_place), &record->{name}_place_len, {source}, {first}, {steps})) {{
        record->{name}_whole |= PLACE_CUT;
        fits = 0;
    }}
"""
    return lines


def _reserve(shape: Shape, record: Layout) -> str:
    """A record with its head and fields filled in."""
    words = payload_bytes(shape.model) // 8
    return f"""    struct draft *draft = draft_of_cpu();
    if (!draft)
        return 0;
    struct {record.name} *record = {record.ring}_ring.ringbuf_reserve({_bytes(record.ring)});
    if (!record) {{
        lose(draft->probe, LOST_RING_FULL);
        return draft_end(ctx, draft);
    }}
    u64 task = current_task();
    fill_head((struct head *)record, draft->probe, task, origin_of_current(task), draft->enter_ns, draft->ret);
    record->cwd_key = draft->cwd_key;
#pragma unroll
    for (u32 word = {HEAD_BYTES // 8}; word < {HEAD_BYTES // 8 + words}; word++)
        ((u64 *)record)[word] = draft->record[word];
    volatile u32 fits = 1;
"""


def _hash(record: Layout) -> str:
    """What makes two events the same, as `hash`."""
    lines = ["        u64 hash = hash_head((struct head *)record);\n"]
    words = payload_bytes(record.kind) // 8
    if words:
        lines.append(f"        hash = hash_string(hash, (u8 *)record + {HEAD_BYTES}, {8 * words}, {8 * words});\n")
    areas = [(area.name, area.room(record.length)) for area in record.kind.areas]
    lines += [f"        hash = hash_string(hash, record->{name}, record->{name}_len, {room});\n" for name, room in areas]
    return "".join(lines)


def _finish(shape: Shape, record: Layout) -> str:
    """The program for records of one length. What does not fit goes on to the program for the next length. Rules on repeats are for all but long
    records: what is so long is always told."""
    ring, function = f"{record.ring}_ring", shape.functions[record.length]
    reads = "".join(_read(slot, place, STEPS[record.length]) for place, slot in enumerate(shape.model.slots))
    longer = f"""    if (!fits) {{
        {ring}.ringbuf_discard(record, BPF_RB_NO_WAKEUP);
        programs.call(ctx, {shape.programs[function] + 1});
        return 0;
    }}
"""
    repeats = f"""{_hash(record)}        keep = !repeated(draft->probe, hash) && !(kinds & RATE && throttled(draft->probe, record->cgroup_id));
"""
    rate = "        keep = !(kinds & RATE && throttled(draft->probe, record->cgroup_id));\n"
    return f"""
/* Records of {", ".join(each.name for each in shape.kinds)}. */
int {function}(struct bpf_raw_tracepoint_args *ctx)
{{
{_reserve(shape, record)}{reads}{longer if record.length is not shape.model.lengths[-1] else ""}    u32 kinds = draft->kinds;
    bool keep = true;
    if (kinds & REPEATS) {{
{rate if record.length is Length.LONG else repeats}    }}
    if (keep)
        {ring}.ringbuf_submit(record, {record.ring}_wakeup());
    else
        {ring}.ringbuf_discard(record, BPF_RB_NO_WAKEUP);
    return draft_end(ctx, draft);
}}
"""


def functions(names: Iterable[str] = PROBES) -> str:
    """What comes between bpf/include and the probes' own files: `<ring>_wakeup`, `<kind>_begin` and `<kind>_submit`, and the programs of the shapes.

    They are text, and no macros, because BCC does not take a map's functions inside a macro.
    """
    wakeups = [_wakeup(buffer, stride(records)) for buffer in BUFFERS.values() if (records := records_of(buffer.name))]
    return "".join([*wakeups, *_functions(shapes(names))])


def _functions(found: list[Shape]) -> Iterator[str]:
    for shape in found:
        for kind in shape.kinds:
            yield _begin(kind)
            yield _submit(kind, shape)
        yield from (_finish(shape, record) for record in layouts(shape.model))
