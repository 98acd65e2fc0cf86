"""Files opened."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

OPEN = Kind(
    "open",
    2,
    "A file was opened, or failed to be (open, openat, openat2, creat; open_by_handle_at, which has no path).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("path", 30, "The path, as given."),
        Column("flags", Type.U32, 21, "O_* flags (include/uapi/asm-generic/fcntl.h).", codec="ZSTD(1)"),
        Column("mode", Type.U32, 22, "Permission bits for a file that is created.", codec="ZSTD(1)"),
        Column("dirfd", Type.I32, 23, "Directory that a relative path starts from; -100 (AT_FDCWD) is the working directory.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("flags", "u32", "O_* flags"),
        Field("mode", "u32", "permission bits"),
        Field("dirfd", "s32", "directory file descriptor"),
    ),
    slots=(Slot("path", 80, PATH_MAX, "the path as given", Source.PATH),),
    ring="open",
)
