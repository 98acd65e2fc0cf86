"""Memory of other processes read and written."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

PROCESS_VM = Kind(
    "process_vm",
    43,
    "The memory of another process was read or written, or failed to be (process_vm_readv, process_vm_writev). `ret` is how many bytes.",
    columns=(
        *WHO,
        *CALL,
        Column("action", Type.NAME, 20, "read or write.", names={0: "read", 1: "write"}),
        Column("target_pid", Type.I32, 21, "Whose memory, as the caller sees it.", codec="ZSTD(1)"),
        Column("local_count", Type.U64, 22, "Into or out of how many pieces of the caller's own memory.", codec="ZSTD(1)"),
        Column("remote_count", Type.U64, 23, "How many pieces of the other's.", codec="ZSTD(1)"),
        Column("flags", Type.U64, 24, "Flags; the kernel has none yet.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("local_count", "u64", "pieces of the caller's memory"),
        Field("remote_count", "u64", "pieces of the other's memory"),
        Field("flags", "u64", "flags"),
        Field("action", "u32", "0 read, 1 write"),
        Field("target_pid", "s32", "process id"),
    ),
    lane=Lane.SECURITY,
)
