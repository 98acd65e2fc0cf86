"""Files and directories removed."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO, path_columns

UNLINK = Kind(
    "unlink",
    20,
    "A file or a directory was removed, or failed to be (unlink, unlinkat, rmdir).",
    columns=(
        *WHO,
        *CALL,
        *path_columns("path", 30, "What was removed, as given."),
        Column("directory", Type.BOOL, 20, "Whether a directory was to be removed: rmdir, or unlinkat with AT_REMOVEDIR."),
    ),
    fields=(Field("directory", "u32", "whether a directory is to be removed"),),
    slots=(Slot("path", 80, PATH_MAX, "what is removed", Source.PATH),),
    ring="file",
)
