"""Kernel modules loaded and removed."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO

MODULE = Kind(
    "module",
    44,
    "A kernel module was loaded or removed, or failed to be (init_module, finit_module, delete_module).",
    columns=(
        *WHO,
        *CALL,
        Column("call", Type.NAME, 20, "The system call.", names={0: "init_module", 1: "finit_module", 2: "delete_module"}),
        Column("name", Type.TEXT, 21, "Name of the module, for delete_module.", codec="ZSTD(1)"),
        Column("parameters", Type.TEXT, 22, "Parameters of a module loaded, as given.", codec="ZSTD(1)"),
        Column("file", Type.TEXT, 23, "The file it was loaded from, for finit_module; else empty.", codec="ZSTD(1)"),
        Column("fd", Type.I32, 24, "Descriptor of the file, for finit_module; else -1.", codec="ZSTD(1)"),
        Column("length", Type.U64, 25, "Size of the module in memory, for init_module; else 0.", "bytes", "ZSTD(1)"),
        Column("flags", Type.U32, 26, "MODULE_INIT_* (include/uapi/linux/module.h) for finit_module, O_* for delete_module.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("length", "u64", "bytes in memory"),
        Field("call", "u32", "0 init_module, 1 finit_module, 2 delete_module"),
        Field("fd", "s32", "file descriptor"),
        Field("flags", "u32", "flags"),
    ),
    slots=(
        Slot("name", 64, 64, "name of the module"),
        Slot("parameters", 64, 4096, "parameters"),
        Slot("file", 80, PATH_MAX, "the file it is loaded from", Source.PLACE),
    ),
    ring="file",
    lane=Lane.SECURITY,
)
