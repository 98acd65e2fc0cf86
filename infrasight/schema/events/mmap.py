"""Memory mapped that can be executed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO

MMAP = Kind(
    "mmap",
    40,
    "Memory was mapped that can be executed, or failed to be (mmap); libraries are loaded this way. `ret` is the address. Other mappings are "
    "told only when the rule `all` asks for them.",
    columns=(
        *WHO,
        *CALL,
        Column("addr", Type.U64, 20, "Address asked for; 0 leaves it to the kernel.", codec="ZSTD(1)"),
        Column("length", Type.U64, 21, "How much.", "bytes", "ZSTD(1)"),
        Column("prot", Type.U32, 22, "PROT_* flags (include/uapi/asm-generic/mman-common.h).", codec="ZSTD(1)"),
        Column("flags", Type.U32, 23, "MAP_* flags (include/uapi/linux/mman.h, include/uapi/asm-generic/mman.h).", codec="ZSTD(1)"),
        Column("fd", Type.I32, 24, "Descriptor of the file; -1, usually, for anonymous memory.", codec="ZSTD(1)"),
        Column("offset", Type.U64, 25, "Where in the file it starts.", "bytes", "ZSTD(1)"),
        Column("file", Type.TEXT, 26, "The file that `fd` was when the call returned; empty for anonymous memory.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("addr", "u64", "address asked for"),
        Field("length", "u64", "bytes"),
        Field("offset", "u64", "offset in the file"),
        Field("prot", "u32", "PROT_* flags"),
        Field("flags", "u32", "MAP_* flags"),
        Field("fd", "s32", "file descriptor"),
    ),
    slots=(Slot("file", 80, PATH_MAX, "the file mapped", Source.PLACE),),
    ring="file",
    selective=True,
    lane=Lane.SECURITY,
)
