"""How often processes make system calls."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import INTERVAL, WHO

CALL_NUMBERS = 512
"""More than any system call has for a number."""

SYSCALL_FREQ = Kind(
    "syscall_freq",
    11,
    "How often a process made a system call since its last row: one row for each call that it made, in each interval, and when it ends. Calls of "
    "32-bit programs are counted as the ones that 64-bit programs would have made.",
    columns=(
        *WHO,
        *INTERVAL,
        Column("syscall", Type.NAME, 20, "Name of the call, or its number when it has none here."),
        Column("number", Type.U32, 21, "Its number, on the machine that made it.", codec="ZSTD(1)"),
        Column("count", Type.U64, 22, "How often.", "calls", "ZSTD(1)"),
    ),
    fields=(Field("interval", "u32", "when `who` was last looked at"), Field("calls", f"u32[{CALL_NUMBERS}]", "how often, by number")),
    ring="syscall_freq",
    composed=True,
    account=True,
    lane=Lane.TELEMETRY,
)
