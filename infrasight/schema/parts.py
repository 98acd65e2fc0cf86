"""What event kinds have in common: sizes, what every record begins with, and the columns that say who did it and how it went."""

from __future__ import annotations

from infrasight.schema.columns import Column, Field, Type

PATH_MAX = 4096
"""Bytes of a path the kernel accepts, its NUL included (include/uapi/linux/limits.h)."""
COMM_LEN = 16
"""Bytes of a task's name, its NUL included (TASK_COMM_LEN, include/linux/sched.h)."""
UNIX_PATH_MAX = 108
"""Bytes of a unix socket's address (include/uapi/linux/un.h)."""
ARGV_MAX = 4096
"""Bytes of argv that are kept; what was longer is marked `argv_truncated`."""

HEAD: tuple[Field, ...] = (
    Field("enter_ns", "u64", "monotonic clock at system call entry"),
    Field("latency_ns", "u64", "time from entry to exit"),
    Field("ret", "s64", "return code"),
    Field("cgroup_id", "u64", "cgroup v2 id"),
    Field("start_ns", "u64", "start of the process, boot-time clock"),
    Field("pid", "u32", "thread group id"),
    Field("tid", "u32", "thread id"),
    Field("ppid", "u32", "thread group id of the parent"),
    Field("uid", "u32", "real user id"),
    Field("gid", "u32", "real group id"),
    Field("ns_pid", "u32", "process id inside its own pid namespace"),
    Field("comm", f"char[{COMM_LEN}]", "name of the thread"),
)
"""What every record begins with."""

WHO: tuple[Column, ...] = (
    Column("ts", Type.TIME, 1, "When the system call was entered.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
    Column("node", Type.NAME, 2, "Name of the node that saw it."),
    Column("pid", Type.U32, 3, "Process (thread group) id, as the host sees it.", codec="ZSTD(1)"),
    Column("tid", Type.U32, 4, "Thread id, as the host sees it.", codec="ZSTD(1)"),
    Column("ppid", Type.U32, 5, "Process id of the parent at that time.", codec="ZSTD(1)"),
    Column("uid", Type.U32, 6, "Real user id.", codec="ZSTD(1)"),
    Column("gid", Type.U32, 7, "Real group id.", codec="ZSTD(1)"),
    Column("user", Type.NAME, 8, "Name of the user, or the number when it has none."),
    Column("group", Type.NAME, 9, "Name of the group, or the number when it has none."),
    Column("comm", Type.NAME, 10, "Name of the thread (15 bytes at most); after a successful exec, the new one."),
    Column("ns_pid", Type.U32, 11, "Process id as seen inside its own pid namespace.", codec="ZSTD(1)"),
    Column("cgroup_id", Type.U64, 12, "Id of the cgroup (v2 hierarchy); it tells containers apart.", codec="ZSTD(1)"),
    Column("process_id", Type.U64, 13, "The process, unique over all nodes and time: a hash of node, boot, start time and pid.", codec="ZSTD(1)"),
    Column("parent_id", Type.U64, 14, "`process_id` of the process that forked it; 0 when not known.", codec="ZSTD(1)"),
    Column("ancestors", Type.LINEAGE, 15, "Names of parent, grandparent and so on, as they were when each forked; nearest first."),
)
"""Who did it and when: the first columns of every kind."""

CALL: tuple[Column, ...] = (
    Column("ret", Type.I64, 16, "Return code; a negative errno when it failed.", codec="ZSTD(1)"),
    Column("latency_ns", Type.U64, 17, "Time from entry to return.", "ns", "T64, ZSTD(1)"),
)
"""What every system call has besides."""
