"""What event kinds have in common: sizes, what every record begins with, and the columns that say who did it and how it went."""

from __future__ import annotations

from infrasight.schema.columns import RESOLVED, Column, Field, Type

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
    Field("cgroup_id", "u64", "cgroup id, and in the upper 16 bits which v1 hierarchy it is of"),
    Field("start_ns", "u64", "start of the process, boot-time clock"),
    Field("cap_effective", "u64", "effective capabilities"),
    Field("cwd_key", "u64", "what tells the working directory from others"),
    Field("probe", "u32", "which kind of record it is: its place in `PROBES`"),
    Field("exec_id", "u32", "how many programs the process and those it descends from have become"),
    Field("pid", "u32", "thread group id"),
    Field("tid", "u32", "thread id"),
    Field("ppid", "u32", "thread group id of the parent"),
    Field("uid", "u32", "real user id"),
    Field("gid", "u32", "real group id"),
    Field("euid", "u32", "effective user id"),
    Field("ns_pid", "u32", "process id inside its own pid namespace"),
    Field("login_uid", "u32", "user id at login"),
    Field("session_id", "u32", "login session"),
    Field("tty", "u32", "device number of the controlling terminal"),
    Field("comm", f"char[{COMM_LEN}]", "name of the thread"),
)
"""What every record begins with."""

SOCKET: tuple[Field, ...] = (
    Field("fd", "s32", "file descriptor"),
    Field("family", "u16", "AF_* of the address given, or of the other end"),
    Field("dport", "u16", "its port, host byte order"),
    Field("sport", "u16", "local port, host byte order"),
    Field("socket_type", "u16", "SOCK_*"),
    Field("socket_protocol", "u16", "IPPROTO_*"),
    Field("socket_family", "u16", "AF_* of the socket"),
    Field("daddr", "u8[16]", "address given, or of the other end, network byte order"),
    Field("saddr", "u8[16]", "local address, network byte order"),
)
"""What the fields of each kind about sockets begin with; struct socket_fields of bpf/include/sockets.h."""

WHO: tuple[Column, ...] = (
    Column("ts", Type.TIME, 1, "When the system call was entered.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
    Column("node", Type.NAME, 2, "Name of the node that saw it."),
    Column("pid", Type.U32, 3, "Process (thread group) id, as the host sees it.", codec="ZSTD(1)"),
    Column("tid", Type.U32, 4, "Thread id, as the host sees it.", codec="ZSTD(1)"),
    Column("ppid", Type.U32, 5, "Process id of the parent at that time.", codec="ZSTD(1)"),
    Column("uid", Type.U32, 6, "Real user id.", codec="ZSTD(1)"),
    Column("gid", Type.U32, 7, "Real group id.", codec="ZSTD(1)"),
    Column("user", Type.NAME, 8, "Name of the user where the process is, or the number when it has none (docs/IDENTITY.md)."),
    Column("group", Type.NAME, 9, "Name of the group where the process is, or the number when it has none."),
    Column("comm", Type.NAME, 10, "Name of the thread (15 bytes at most); after a successful exec, the new one."),
    Column("ns_pid", Type.U32, 11, "Process id as seen inside its own pid namespace.", codec="ZSTD(1)"),
    Column(
        "cgroup_id",
        Type.U64,
        12,
        "Id of the cgroup: that of the v2 hierarchy or, for what is in the root of that, of the v1 hierarchy of the pids controller, whose number is "
        "then in the upper 16 bits.",
        codec="ZSTD(1)",
    ),
    Column("process_id", Type.U64, 13, "The process, unique over all nodes and time: a hash of node, boot, start time and pid.", codec="ZSTD(1)"),
    Column("parent_id", Type.U64, 14, "`process_id` of the process that forked it; 0 when not known.", codec="ZSTD(1)"),
    Column("ancestors", Type.LINEAGE, 15, "Names of parent, grandparent and so on, as they were when each forked; nearest first."),
    Column("euid", Type.U32, 101, "Effective user id.", codec="ZSTD(1)"),
    Column("login_uid", Type.U32, 102, "User id at login, kept by su and sudo; 4294967295 when nobody logged in.", codec="ZSTD(1)"),
    Column("session_id", Type.U32, 103, "Login session (audit); 4294967295 for none.", codec="ZSTD(1)"),
    Column("tty", Type.NAME, 104, "Controlling terminal: pts/0, tty1 and so on; empty for none."),
    Column("cap_effective", Type.U64, 105, "Effective capabilities, a bit each (include/uapi/linux/capability.h).", codec="ZSTD(1)"),
    Column("exe", Type.NAME, 106, "The program that the process ran then: its file, as the kernel found it. Empty for kernel threads."),
    Column("cwd", Type.NAME, 107, "Working directory then; empty when not known."),
    Column("container_id", Type.NAME, 108, "The innermost container that it was in, by the path of its cgroup: id, or name where there is no other."),
    Column("container_runtime", Type.NAME, 109, "What runs that container: docker, containerd, podman and so on; empty when the path does not say."),
    Column("pod_uid", Type.NAME, 110, "Uid of the Kubernetes pod that it was in."),
    Column("container_name", Type.NAME, 111, "Name of that container, as its runtime says; of a Kubernetes container that in the pod."),
    Column("image", Type.NAME, 112, "The image that it was made of, as its runtime says."),
    Column("image_digest", Type.NAME, 113, "What the image's name stood for then: sha256:..."),
    Column(
        "container_labels",
        Type.LINEAGE,
        114,
        "Its labels and those of its pod, name=value each, in the order of their names; 64 at most. Of one that both have, its own.",
    ),
    Column(
        "container_created",
        Type.TIME,
        115,
        "When it was made, as its runtime says; 1970 when that is not known.",
        "ns since the epoch, UTC",
        "ZSTD(1)",
    ),
    Column("privileged", Type.BOOL, 116, "Whether it may use all devices and has CAP_SYS_ADMIN, as with --privileged."),
    Column("pod_name", Type.NAME, 117, "Name of the pod."),
    Column("pod_namespace", Type.NAME, 118, "Kubernetes namespace of the pod."),
    Column(
        "identity",
        Type.NAME,
        119,
        "How much is known of the container: complete; pending, when its runtime has not told yet; path, when no runtime is there that could, or it "
        "has not told within an hour; empty outside of containers. Rows stored before it told become complete once it does (docs/IDENTITY.md).",
    ),
    Column(
        "container_started",
        Type.TIME,
        120,
        "When it was started: when the kernel made its cgroup, or as its runtime says; 1970 when that is not known.",
        "ns since the epoch, UTC",
        "ZSTD(1)",
    ),
    Column(
        "workload",
        Type.NAME,
        121,
        "What owns the pod, by the labels that controllers set: Deployment/web, StatefulSet/db, DaemonSet/log, Job/x, CronJob/x, ReplicaSet/x, and "
        "Node/name for a static pod.",
    ),
)
"""Who did it and when: the first columns of every kind."""

TOLD = (
    *("container_name", "image", "image_digest", "container_labels", "container_created", "privileged"),
    *("pod_name", "pod_namespace", "workload"),
)
"""Those that a container's runtime tells. A row that was stored before it told has them empty, and is healed (`infrasight.server.healer`)."""

CALL: tuple[Column, ...] = (
    Column(
        "ret",
        Type.I64,
        16,
        "Return code; a negative errno when it failed. -512 to -516 when a signal came before it had done anything: the kernel then begins it anew, "
        "which is another event, or has it fail with EINTR.",
        codec="ZSTD(1)",
    ),
    Column("latency_ns", Type.U64, 17, "Time from entry to return.", "ns", "T64, ZSTD(1)"),
)
"""What every system call has besides."""


def path_columns(name: str, number: int, doc: str) -> tuple[Column, Column]:
    """The two columns of a path (`columns.Slot` with `place`): as given (tag `number`), and where it really led (tag `number` + 1)."""
    return (
        Column(name, Type.TEXT, number, doc, codec="ZSTD(1)"),
        Column(
            f"{name}{RESOLVED}",
            Type.TEXT,
            number + 1,
            f"Where `{name}` leads, absolute in the mount namespace. When the call opened it, it is where the kernel found it, through every link "
            "and `..`; else it starts from the directory the kernel would have started from, with `.` and `..` taken out by name.",
            codec="ZSTD(1)",
        ),
    )


INTERVAL: tuple[Column, ...] = (
    Column("interval_ns", Type.U64, 16, "How long before `ts` counting began: when it was last looked at, or first seen.", "ns", "ZSTD(1)"),
    Column("final", Type.BOOL, 17, "Whether it is the last: the process has ended."),
)
"""What rows of an account have besides."""
