"""Rings of input and output."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

IO_URING_SETUP = Kind(
    "io_uring_setup",
    47,
    "A ring of input and output was made, or failed to be (io_uring_setup). `ret` is its descriptor. What is done through a ring makes no "
    "system calls.",
    columns=(
        *WHO,
        *CALL,
        Column("entries", Type.U32, 20, "Room for how many submissions.", codec="ZSTD(1)"),
        Column("flags", Type.U32, 21, "IORING_SETUP_* flags (include/uapi/linux/io_uring.h).", codec="ZSTD(1)"),
        Column("features", Type.U32, 22, "IORING_FEAT_* flags: what the kernel says that it can do; 0 when it failed.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("entries", "u32", "room"),
        Field("flags", "u32", "IORING_SETUP_*"),
        Field("features", "u32", "IORING_FEAT_*"),
    ),
    lane=Lane.SECURITY,
)
