"""Namespaces made."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

UNSHARE = Kind(
    "unshare",
    51,
    "A process moved into new namespaces, or stopped sharing other things, or failed to (unshare).",
    columns=(
        *WHO,
        *CALL,
        Column("flags", Type.U64, 20, "CLONE_* flags (include/uapi/linux/sched.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u64", "CLONE_* flags"),),
    lane=Lane.SECURITY,
)
