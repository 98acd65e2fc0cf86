"""Programs executed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import ARGV_MAX, CALL, PATH_MAX, WHO, path_columns

EXECVE = Kind(
    "execve",
    1,
    "A program was executed, or failed to be (execve, execveat). A successful one shows the new program's own memory, so its arguments cannot be "
    "changed after the fact.",
    columns=(
        *WHO,
        *CALL,
        *path_columns("path", 30, "The file asked for, as given; empty where that was a descriptor (execveat)."),
        Column("argv", Type.WORDS, 21, f"The arguments, argv[0] first; {ARGV_MAX} bytes at most.", codec="ZSTD(1)"),
        Column("argv_truncated", Type.BOOL, 22, "Whether `argv` is not all: too long, or, of an exec that failed early, not in memory."),
        Column("exe_memfd", Type.BOOL, 23, "Whether the program that runs now is no file but memory (memfd_create)."),
        Column("exe_upper", Type.BOOL, 24, "Whether the program that runs now is on an overlay's upper layer: in a container, not of its image."),
        Column("redacted", Type.BOOL, 25, "Whether something in `argv` was masked: a password, a token, a key (docs/REDACTION.md)."),
    ),
    fields=(
        Field("argv_truncated", "u32", "whether argv was cut"),
        Field("exe_memfd", "u32", "whether the program is in memory only"),
        Field("exe_upper", "u32", "whether the program is on the upper layer of an overlay"),
    ),
    slots=(
        Slot("path", 128, PATH_MAX, "the file asked for", Source.PATH),
        Slot("argv", 256, ARGV_MAX, "arguments, each ended by a NUL", Source.OWN),
    ),
    ring="execve",
    composed=True,
    lane=Lane.SECURITY,
)
