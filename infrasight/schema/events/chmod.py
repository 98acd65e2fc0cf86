"""Permissions changed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

CHMOD = Kind(
    "chmod",
    6,
    "The permissions of a file were changed, or failed to be (chmod, fchmod, fchmodat, fchmodat2).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("path", 30, "The path, as given; empty for fchmod."),
        Column("mode", Type.U32, 21, "The new permission bits.", codec="ZSTD(1)"),
        Column("dirfd", Type.I32, 22, "Directory that a relative path starts from; -100 (AT_FDCWD) is the working directory.", codec="ZSTD(1)"),
        Column("fd", Type.I32, 23, "The file itself, for fchmod; else -1.", codec="ZSTD(1)"),
        Column("flags", Type.U32, 24, "AT_* flags, for fchmodat2.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("mode", "u32", "permission bits"),
        Field("dirfd", "s32", "directory file descriptor"),
        Field("fd", "s32", "file descriptor"),
        Field("flags", "u32", "AT_* flags"),
    ),
    slots=(Slot("path", 80, PATH_MAX, "the path as given", Source.PATH),),
    ring="file",
    lane=Lane.SECURITY,
)
