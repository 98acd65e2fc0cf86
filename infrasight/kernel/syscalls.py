"""Numbers of the system calls that are traced, by machine. A call that a machine does not have is left out of the kernel side there.

From arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of the kernel: numbers are never given to another call.
"""

from __future__ import annotations

import platform

NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "open": 2,
        "connect": 42,
        "execve": 59,
        "creat": 85,
        "chmod": 90,
        "fchmod": 91,
        "ptrace": 101,
        "mount": 165,
        "umount2": 166,
        "openat": 257,
        "fchmodat": 268,
        "execveat": 322,
        "move_mount": 429,
        "openat2": 437,
        "fchmodat2": 452,
    },
    "aarch64": {
        "umount2": 39,
        "mount": 40,
        "fchmod": 52,
        "fchmodat": 53,
        "openat": 56,
        "ptrace": 117,
        "connect": 203,
        "execve": 221,
        "execveat": 281,
        "move_mount": 429,
        "openat2": 437,
        "fchmodat2": 452,
    },
}


def number(call: str) -> int | None:
    """The number of a call on this machine; None when it has no such call."""
    return NUMBERS.get(platform.machine(), {}).get(call)
