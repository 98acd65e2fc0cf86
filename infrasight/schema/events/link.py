"""Hard links and symbolic links made."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

LINK = Kind(
    "link",
    22,
    "A file got one more name, or failed to (link, linkat).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("old_path", 30, "The file, as given; empty when it was given as a descriptor (AT_EMPTY_PATH)."),
        *path_columns("new_path", 32, "Its new name, as given."),
        Column("flags", Type.U32, 20, "AT_* flags (include/uapi/linux/fcntl.h), for linkat.", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "AT_* flags"),),
    slots=(
        Slot("old_path", 80, PATH_MAX, "the file", Source.PATH),
        Slot("new_path", 80, PATH_MAX, "the new path", Source.PATH),
    ),
    ring="file",
)

SYMLINK = Kind(
    "symlink",
    23,
    "A symbolic link was made, or failed to be (symlink, symlinkat).",
    columns=(
        *WHO,
        *CALL,
        Column("target", Type.TEXT, 20, "What the link says, as given: any string.", codec="ZSTD(1)"),
        *path_columns("path", 30, "The new link, as given."),
    ),
    slots=(
        Slot("target", 80, PATH_MAX, "what the link says"),
        Slot("path", 80, PATH_MAX, "the new link", Source.PATH),
    ),
    ring="file",
)
