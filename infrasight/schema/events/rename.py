"""Files renamed."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

RENAME = Kind(
    "rename",
    21,
    "A file or a directory was renamed or moved, or failed to be (rename, renameat, renameat2).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("old_path", 30, "What it was called, as given."),
        *path_columns("new_path", 32, "What it is to be called, as given."),
        Column("flags", Type.U32, 20, "RENAME_* flags (include/uapi/linux/fs.h), for renameat2.", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "RENAME_* flags"),),
    slots=(
        Slot("old_path", 80, PATH_MAX, "the old path", Source.PATH),
        Slot("new_path", 80, PATH_MAX, "the new path", Source.PATH),
    ),
    ring="file",
)
