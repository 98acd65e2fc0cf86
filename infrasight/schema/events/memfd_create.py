"""Files in memory only."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Type
from infrasight.schema.parts import CALL, WHO

MEMFD_CREATE = Kind(
    "memfd_create",
    42,
    "A file was made that is in memory only, or failed to be (memfd_create). `ret` is its descriptor.",
    columns=(
        *WHO,
        *CALL,
        Column("name", Type.TEXT, 20, "Its name, as given; any number of files can have it.", codec="ZSTD(1)"),
        Column("flags", Type.U32, 21, "MFD_* flags (include/uapi/linux/memfd.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "MFD_* flags"),),
    slots=(Slot("name", 256, 256, "its name"),),
    ring="file",
    lane=Lane.SECURITY,
)
