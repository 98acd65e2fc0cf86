"""Life of processes."""

from infrasight.schema.columns import Column, Field, Kind, Type
from infrasight.schema.parts import COMM_LEN, WHO

FORK, EXEC, EXIT = 1, 2, 3
"""`action` of a record (bpf/process.c)."""

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
        Field("action", "u32", "1 fork, 2 exec, 3 exit"),
        Field("status", "u32", "wait status, on exit"),
        Field("parent_comm", f"char[{COMM_LEN}]", "name of the parent process"),
    ),
)
