"""Life of processes."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Slot, Source, Type
from infrasight.schema.parts import COMM_LEN, WHO

FORK, EXEC, EXIT, CWD, CGROUP, CGROUP_GONE = 1, 2, 3, 4, 5, 6
"""`action` of a record (bpf/process.c). The last three are no rows: CWD tells what directory a key stands for, before the first event there, CGROUP
what cgroup an id does, before anything is in it, and CGROUP_GONE that it has been removed."""
MOUNT_NS_INODE = 2**32 - 1
"""The part of `mount_ns` that is an inode number, as /proc tells it. Of what is known by /proc alone the other part is 0."""

PROCESS = Kind(
    "process",
    4,
    "A process began (fork), became another program (exec) or ended (exit). Threads are not counted.",
    columns=(
        *WHO,
        Column("action", Type.NAME, 20, "fork, exec or exit.", names={FORK: "fork", EXEC: "exec", EXIT: "exit"}),
        Column("exit_code", Type.I32, 21, "On exit: the status it ended with, 0 to 255.", codec="ZSTD(1)"),
        Column("signal", Type.I32, 22, "On exit: the signal that ended it, 0 when none did.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("parent_start_ns", "u64", "start of the parent process, boot-time clock; of a cgroup the id of the one it is in"),
        Field("mount_ns", "u64", "inode number of the mount namespace, and above it which of those with that; 0 when it has been left already"),
        Field("action", "u16", "1 fork, 2 exec, 3 exit, 4 cwd, 5 cgroup, 6 cgroup gone"),
        Field("cut", "u16", "1 `file` is not all, 2 `cwd` is not"),
        Field("status", "u32", "wait status, on exit"),
        Field("parent_comm", f"char[{COMM_LEN}]", "name of the parent process"),
    ),
    slots=(
        Slot("file", 256, 256, "on exec the program; of a cgroup its path, of a long one the end", Source.OWN),
        Slot("cwd", 192, 192, "on exec and cwd the working directory", Source.OWN),
    ),
    ring="process",
    composed=True,
    lane=Lane.SECURITY,
)
