"""Directories made."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

MKDIR = Kind(
    "mkdir",
    24,
    "A directory was made, or failed to be (mkdir, mkdirat).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("path", 30, "The new directory, as given."),
        Column("mode", Type.U32, 20, "Its permission bits, from which the process's umask takes away.", codec="ZSTD(1)"),
    ),
    fields=(Field("mode", "u32", "permission bits"),),
    slots=(Slot("path", 80, PATH_MAX, "the new directory", Source.PATH),),
    ring="file",
)
