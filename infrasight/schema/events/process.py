"""Life of processes."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.parts import COMM_LEN, WHO

FORK, EXEC, EXIT, CWD = 1, 2, 3, 4
"""`action` of a record (bpf/process.c). CWD is no row: it tells what directory a key stands for, before the first event there."""

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
        Field("parent_start_ns", "u64", "start of the parent process, boot-time clock"),
        Field("action", "u32", "1 fork, 2 exec, 3 exit, 4 cwd"),
        Field("status", "u32", "wait status, on exit"),
        Field("cut", "u32", "1 there is more of `file`, 2 of `cwd`"),
        Field("unused", "u32", ""),
        Field("parent_comm", f"char[{COMM_LEN}]", "name of the parent process"),
    ),
    slots=(
        Slot("file", 256, 256, "on exec the program", Source.OWN),
        Slot("cwd", 192, 192, "on exec and cwd the working directory", Source.OWN),
    ),
    ring="process",
    composed=True,
)
