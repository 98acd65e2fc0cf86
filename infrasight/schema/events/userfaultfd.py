"""Page faults taken over."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

USERFAULTFD = Kind(
    "userfaultfd",
    46,
    "A process asked to handle page faults by itself, or failed to (userfaultfd). `ret` is the descriptor. Exploits stop the "
    "kernel in mid-copy with it.",
    columns=(
        *WHO,
        *CALL,
        Column("flags", Type.U32, 20, "O_* flags, and 1 for UFFD_USER_MODE_ONLY (include/uapi/linux/userfaultfd.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "flags"),),
    lane=Lane.SECURITY,
)
