"""The C that derives from the declarations, and that bpf/ is compiled with: structs, ring buffers, numbers, and the way in and out of each record."""

from __future__ import annotations

from collections.abc import Iterable

from infrasight.schema.columns import Kind
from infrasight.schema.kinds import KINDS, LOSS_REASONS, PROBES
from infrasight.schema.layout import ARRAY, Layout, layouts
from infrasight.schema.parts import HEAD


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
    """What comes before bpf/include: numbers of probes and reasons, and for each probe named its structs, rings and slot sizes."""
    parts = [f"#define PROBE_{name.upper()} {number}" for number, name in enumerate(PROBES)]
    parts += [f"#define LOST_{reason.upper()} {number}" for number, reason in enumerate(LOSS_REASONS)]
    parts += [f"#define PROBES {len(PROBES)}", f"#define LOSS_REASONS {len(LOSS_REASONS)}"]
    parts += ["struct head {", *(_member(field.name, field.ctype) for field in HEAD), "};"]
    for name in names:
        kind = KINDS[name]
        for slot in kind.slots:
            what = f"{slot.name}_{{}}_{name}".upper()
            parts += [f"#define {what.format('SHORT')} {slot.short}", f"#define {what.format('LONG')} {slot.long}"]
        for each in layouts(kind):
            parts += [struct(each), f"BPF_RINGBUF_OUTPUT({each.name}_ring, {each.ring_bytes // 4096});"]
    return "\n".join(parts) + "\n"


def _begin(kind: Kind) -> str:
    name = kind.name
    return f"""
/* A record of the call that ends now, its head filled in; 0 when the call is not to be told, or there is no room. To be submitted on every path. */
static __always_inline struct {name} *{name}_begin(struct call *call, s64 ret)
{{
    if (!call)
        return 0;
    u64 task = current_task();
    struct origin origin = origin_of_current(task);
    if (is_family(origin.ppid))
        return 0;
    struct {name} *record = {name}_ring.ringbuf_reserve(sizeof(*record));
    if (record)
        fill_head((struct head *)record, task, origin, call->enter_ns, ret);
    else
        lose(PROBE_{name.upper()}, LOST_RING_FULL);
    return record;
}}
"""


def _submit(kind: Kind) -> str:
    """Submitting a record that has no strings, or whose program has filled them in itself."""
    return f"""
static __always_inline void {kind.name}_submit(struct {kind.name} *record) {{ {kind.name}_ring.ringbuf_submit(record, QUIETLY); }}
"""


def _submit_strings(kind: Kind) -> str:
    """Submitting a record with its slots read from user memory; where one does not fit, through the long record instead."""
    name, slots = kind.name, kind.slots
    arguments = ", ".join(f"u64 {slot.name}" for slot in slots)

    def read(slot: str) -> str:
        return (
            f"    long {slot}_size = user_string(record->{slot}, sizeof(record->{slot}), {slot});\n"
            f"    record->{slot}_len = {slot}_size > 0 ? {slot}_size - 1 : 0;\n"
        )

    reads = "".join(read(slot.name) for slot in slots)
    full = " || ".join(f"{slot.name}_size == sizeof(record->{slot.name})" for slot in slots)
    passed = ", ".join(slot.name for slot in slots)
    return f"""
static __always_inline void {name}_submit_long(struct {name} *brief, {arguments})
{{
    struct {name}_long *record = {name}_long_ring.ringbuf_reserve(sizeof(*record));
    if (!record) {{
        lose(PROBE_{name.upper()}, LOST_RING_FULL);
        return;
    }}
    bpf_probe_read_kernel(record, __builtin_offsetof(struct {name}, {slots[0].name}), brief);
{reads}    {name}_long_ring.ringbuf_submit(record, QUIETLY);
}}

static __always_inline void {name}_submit_strings(struct {name} *record, {arguments})
{{
{reads}    if ({full}) {{
        {name}_submit_long(record, {passed});
        {name}_ring.ringbuf_discard(record, QUIETLY);
    }} else {{
        {name}_ring.ringbuf_submit(record, QUIETLY);
    }}
}}
"""


def functions(names: Iterable[str] = PROBES) -> str:
    """What comes between bpf/include and the probes' own files: `<kind>_begin`, `<kind>_submit` and `<kind>_submit_strings`.

    They are text, and no macros, because BCC does not take a map's functions inside a macro.
    """
    kinds = [KINDS[name] for name in names]
    return "".join(_begin(kind) + _submit(kind) + (_submit_strings(kind) if kind.two_sizes else "") for kind in kinds)
