"""Programs executed."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Type
from infrasight.schema.parts import ARGV_MAX, CALL, PATH_MAX, WHO

EXECVE = Kind(
    "execve",
    1,
    "A program was executed, or failed to be (execve, execveat). A successful one shows the new program's own memory, so its arguments cannot be "
    "changed after the fact.",
    columns=(
        *WHO,
        *CALL,
        Column("path", Type.TEXT, 20, "The file asked for, as given.", codec="ZSTD(1)"),
        Column("argv", Type.WORDS, 21, f"The arguments, argv[0] first; {ARGV_MAX} bytes at most.", codec="ZSTD(1)"),
        Column("argv_truncated", Type.BOOL, 22, "Whether `argv` is not all: too long, or, of an exec that failed early, not in memory."),
    ),
    fields=(Field("argv_truncated", "u32", "whether argv was cut"),),
    slots=(
        Slot("path", 128, PATH_MAX, "the file asked for"),
        Slot("argv", 256, ARGV_MAX, "arguments, each ended by a NUL"),
    ),
    ring_bytes=1 << 20,
    long_ring_bytes=1 << 20,
)
