"""Processes traced."""

from infrasight.schema.columns import Column, Field, Kind, Lane, Type
from infrasight.schema.parts import CALL, WHO

REQUESTS = {
    0: "PTRACE_TRACEME",
    1: "PTRACE_PEEKTEXT",
    2: "PTRACE_PEEKDATA",
    3: "PTRACE_PEEKUSER",
    4: "PTRACE_POKETEXT",
    5: "PTRACE_POKEDATA",
    6: "PTRACE_POKEUSER",
    7: "PTRACE_CONT",
    8: "PTRACE_KILL",
    9: "PTRACE_SINGLESTEP",
    12: "PTRACE_GETREGS",
    13: "PTRACE_SETREGS",
    14: "PTRACE_GETFPREGS",
    15: "PTRACE_SETFPREGS",
    16: "PTRACE_ATTACH",
    17: "PTRACE_DETACH",
    24: "PTRACE_SYSCALL",
    30: "PTRACE_ARCH_PRCTL",
    31: "PTRACE_SYSEMU",
    32: "PTRACE_SYSEMU_SINGLESTEP",
    33: "PTRACE_SINGLEBLOCK",
    0x4200: "PTRACE_SETOPTIONS",
    0x4201: "PTRACE_GETEVENTMSG",
    0x4202: "PTRACE_GETSIGINFO",
    0x4203: "PTRACE_SETSIGINFO",
    0x4204: "PTRACE_GETREGSET",
    0x4205: "PTRACE_SETREGSET",
    0x4206: "PTRACE_SEIZE",
    0x4207: "PTRACE_INTERRUPT",
    0x4208: "PTRACE_LISTEN",
    0x4209: "PTRACE_PEEKSIGINFO",
    0x420A: "PTRACE_GETSIGMASK",
    0x420B: "PTRACE_SETSIGMASK",
    0x420C: "PTRACE_SECCOMP_GET_FILTER",
    0x420D: "PTRACE_SECCOMP_GET_METADATA",
    0x420E: "PTRACE_GET_SYSCALL_INFO",
    0x420F: "PTRACE_GET_RSEQ_CONFIGURATION",
}
"""include/uapi/linux/ptrace.h, and 12 to 33 arch/x86/include/uapi/asm/ptrace-abi.h."""

PTRACE = Kind(
    "ptrace",
    7,
    "A process traced another, or asked to be traced, or failed to (ptrace).",
    columns=(
        *WHO,
        *CALL,
        Column("request", Type.NAME, 20, "What was asked for: PTRACE_ATTACH and so on, or its number.", names=REQUESTS),
        Column("target_pid", Type.I32, 21, "The thread it was asked of, as the caller sees it.", codec="ZSTD(1)"),
        Column("addr", Type.U64, 22, "The request's address.", codec="ZSTD(1)"),
        Column("data", Type.U64, 23, "The request's data.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("request", "u64", "PTRACE_*"),
        Field("addr", "u64", "address"),
        Field("data", "u64", "data"),
        Field("target_pid", "s32", "thread id"),
    ),
    lane=Lane.SECURITY,
)
