"""Namespaces joined."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import CALL, PATH_MAX, WHO

NAMESPACES = {
    0x80: "time",
    0x20000: "mnt",
    0x2000000: "cgroup",
    0x4000000: "uts",
    0x8000000: "ipc",
    0x10000000: "user",
    0x20000000: "pid",
    0x40000000: "net",
}
"""CLONE_NEW*, include/uapi/linux/sched.h, as /proc/PID/ns calls them."""

SETNS = Kind(
    "setns",
    50,
    "A thread joined other namespaces, or failed to (setns).",
    columns=(
        *WHO,
        *CALL,
        Column("nstype", Type.U32, 20, "CLONE_NEW* flags: of what type it must be, or which namespaces of a process; 0 is any.", codec="ZSTD(1)"),
        Column("type", Type.NAME, 21, "Type of the namespace that `fd` is: net, mnt and so on; empty for a process.", names=NAMESPACES | {0: ""}),
        Column("inode", Type.U64, 22, "Its number, as in `ls -l /proc/PID/ns`; 0 for a process.", codec="ZSTD(1)"),
        Column("target_pid", Type.U32, 23, "The process, as the host sees it, when `fd` is a pidfd (since Linux 6.9); else 0.", codec="ZSTD(1)"),
        Column("fd", Type.I32, 24, "Descriptor of the namespace or process.", codec="ZSTD(1)"),
        Column("file", Type.TEXT, 25, "The file that the namespace is mounted on (/run/netns/blue); empty for one of /proc.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("inode", "u64", "number of the namespace"),
        Field("nstype", "u32", "CLONE_NEW* asked for"),
        Field("type", "u32", "CLONE_NEW* of the namespace"),
        Field("target_pid", "u32", "process id"),
        Field("fd", "s32", "file descriptor"),
    ),
    slots=(Slot("file", 80, PATH_MAX, "file of the namespace", Source.PLACE),),
    ring="file",
    lane=Lane.SECURITY,
)
