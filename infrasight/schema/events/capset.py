"""Capabilities changed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

CAPSET = Kind(
    "capset",
    49,
    "A thread changed its capabilities, or failed to (capset): those asked for, a bit each (include/uapi/linux/capability.h), as they were "
    "in memory when the call returned. `cap_effective` is those that it has afterwards.",
    columns=(
        *WHO,
        *CALL,
        Column("target_pid", Type.I32, 20, "Whose, as the caller sees it; 0 is the caller, and others are refused.", codec="ZSTD(1)"),
        Column("effective", Type.U64, 21, "Those that are in force.", codec="ZSTD(1)"),
        Column("permitted", Type.U64, 22, "Those that it can put in force.", codec="ZSTD(1)"),
        Column("inheritable", Type.U64, 23, "Those that programs it executes can have.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("effective", "u64", "effective capabilities"),
        Field("permitted", "u64", "permitted capabilities"),
        Field("inheritable", "u64", "inheritable capabilities"),
        Field("target_pid", "s32", "thread id"),
    ),
    lane=Lane.SECURITY,
)
