"""Memory made executable."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

MPROTECT = Kind(
    "mprotect",
    41,
    "Memory was made executable, or failed to be (mprotect, pkey_mprotect). Other changes of protection are told only when the "
    "rule `all` asks for them.",
    columns=(
        *WHO,
        *CALL,
        Column("addr", Type.U64, 20, "Where it starts.", codec="ZSTD(1)"),
        Column("length", Type.U64, 21, "How much.", "bytes", "ZSTD(1)"),
        Column("prot", Type.U32, 22, "The new PROT_* flags (include/uapi/asm-generic/mman-common.h).", codec="ZSTD(1)"),
        Column("pkey", Type.I32, 23, "Protection key, for pkey_mprotect; else -1.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("addr", "u64", "address"),
        Field("length", "u64", "bytes"),
        Field("prot", "u32", "PROT_* flags"),
        Field("pkey", "s32", "protection key"),
    ),
    selective=True,
    lane=Lane.SECURITY,
)
