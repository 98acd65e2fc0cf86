"""File systems mounted and unmounted."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO

MOUNT = Kind(
    "mount",
    8,
    "A file system was mounted, remounted, bound or moved, or failed to be (mount, move_mount).",
    columns=(
        *WHO,
        *CALL,
        Column("source", Type.TEXT, 20, "What was mounted, as given: a device, a directory, a name.", codec="ZSTD(1)"),
        Column("target", Type.TEXT, 21, "Where, as given.", codec="ZSTD(1)"),
        Column("fstype", Type.TEXT, 22, "File system type, as given; empty for move_mount."),
        Column("flags", Type.U64, 23, "MS_* flags (MOVE_MOUNT_* for move_mount; include/uapi/linux/mount.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u64", "flags"),),
    slots=(
        Slot("source", 128, PATH_MAX, "what is mounted"),
        Slot("target", 128, PATH_MAX, "where"),
        Slot("fstype", 64, PATH_MAX, "file system type"),
    ),
    ring_bytes=1 << 18,
    long_ring_bytes=1 << 18,
)

UMOUNT = Kind(
    "umount",
    9,
    "A file system was unmounted, or failed to be (umount2).",
    columns=(
        *WHO,
        *CALL,
        Column("target", Type.TEXT, 20, "What was unmounted, as given.", codec="ZSTD(1)"),
        Column("flags", Type.U32, 21, "MNT_* flags (include/linux/fs.h).", codec="ZSTD(1)"),
    ),
    fields=(Field("flags", "u32", "flags"),),
    slots=(Slot("target", 128, PATH_MAX, "what is unmounted"),),
    ring_bytes=1 << 18,
    long_ring_bytes=1 << 18,
)
