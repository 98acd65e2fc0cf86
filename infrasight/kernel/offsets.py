"""The constants that bpf/ is compiled with: where the kernel keeps what we read, found in BTF, and numbers of the user-space interface."""

from __future__ import annotations

import platform

from infrasight.kernel.btf import Btf

OFFSETS: dict[str, tuple[str, str]] = {
    "TASK_PID": ("task_struct", "pid"),
    "TASK_TGID": ("task_struct", "tgid"),
    "TASK_COMM": ("task_struct", "comm"),
    "TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "TASK_REAL_PARENT": ("task_struct", "real_parent"),
    "TASK_START_BOOTTIME": ("task_struct", "start_boottime"),
    "TASK_THREAD_PID": ("task_struct", "thread_pid"),
    "TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "TASK_SIGNAL": ("task_struct", "signal"),
    "TASK_CRED": ("task_struct", "cred"),
    "TASK_CGROUPS": ("task_struct", "cgroups"),
    "CRED_UID": ("cred", "uid"),
    "CRED_GID": ("cred", "gid"),
    "CSS_SET_DFL_CGRP": ("css_set", "dfl_cgrp"),
    "CGROUP_KN": ("cgroup", "kn"),
    "KERNFS_NODE_ID": ("kernfs_node", "id"),
    "TASK_MM": ("task_struct", "mm"),
    "TASK_FILES": ("task_struct", "files"),
    "PID_LEVEL": ("pid", "level"),
    "PID_NUMBERS": ("pid", "numbers"),
    "UPID_NR": ("upid", "nr"),
    "SIGNAL_LIVE": ("signal_struct", "live"),
    "MM_ARG_START": ("mm_struct", "arg_start"),
    "MM_ARG_END": ("mm_struct", "arg_end"),
    "BINPRM_FILENAME": ("linux_binprm", "filename"),
    "FILES_FDT": ("files_struct", "fdt"),
    "FDTABLE_FD": ("fdtable", "fd"),
    "FDTABLE_MAX_FDS": ("fdtable", "max_fds"),
    "FILE_INODE": ("file", "f_inode"),
    "FILE_PRIVATE_DATA": ("file", "private_data"),
    "INODE_MODE": ("inode", "i_mode"),
    "SOCKET_SK": ("socket", "sk"),
    "SOCK_FAMILY": ("sock", "__sk_common.skc_family"),
    "SOCK_NUM": ("sock", "__sk_common.skc_num"),
    "SOCK_RCV_SADDR": ("sock", "__sk_common.skc_rcv_saddr"),
    "SOCK_V6_RCV_SADDR": ("sock", "__sk_common.skc_v6_rcv_saddr"),
    "SOCK_TYPE": ("sock", "sk_type"),
    "SOCK_PROTOCOL": ("sock", "sk_protocol"),
}
"""Constant -> structure and member."""
SIZES = {"UPID_SIZE": "upid"}
"""Constant -> structure."""
INTERFACE = {
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "AT_FDCWD": -100,
    "O_WRONLY": 0o1,
    "O_CREAT": 0o100,
    "O_TRUNC": 0o1000,
    "S_IFMT": 0o170000,
    "S_IFSOCK": 0o140000,
}
"""Numbers of the system call interface, the same on every kernel (include/uapi)."""
EXIT_TELLS_GROUP_DEAD_SINCE = 3
"""Arguments of the exit tracepoint's function, its private data included, since it says whether the whole group died."""


def constants(btf: Btf) -> dict[str, int]:
    """All constants, for the kernel that `btf` describes. KernelError when it lacks a structure or member."""
    found = {name: btf.offset(structure, member) for name, (structure, member) in OFFSETS.items()}
    found |= {name: btf.size(structure) for name, structure in SIZES.items()}
    if btf.arguments("btf_trace_sched_process_exit") >= EXIT_TELLS_GROUP_DEAD_SINCE:
        found["EXIT_TELLS_GROUP_DEAD"] = 1
    if btf.mentions("BPF_FUNC_get_current_task_btf") and btf.mentions("BPF_FUNC_task_pt_regs"):
        found["TYPED_CURRENT_TASK"] = 1
    return found | _registers(btf, platform.machine()) | INTERFACE


def _registers(btf: Btf, machine: str) -> dict[str, int]:
    """Where a system call's number and arguments lie in struct pt_regs, and how a 32-bit call is known."""
    if machine == "aarch64":
        first = btf.offset("pt_regs", "regs")
        arguments = {f"REGS_ARG{place}": first + 8 * place for place in range(6)}
        compat = {"TASK_COMPAT_WORD": btf.offset("task_struct", "thread_info.flags"), "COMPAT_BIT": 1 << 22}  # TIF_32BIT
        return arguments | compat | {"REGS_NUMBER": btf.offset("pt_regs", "syscallno")}
    arguments = {f"REGS_ARG{place}": btf.offset("pt_regs", register) for place, register in enumerate(("di", "si", "dx", "r10", "r8", "r9"))}
    compat = {"TASK_COMPAT_WORD": btf.offset("task_struct", "thread_info.status"), "COMPAT_BIT": 2}  # TS_COMPAT
    return arguments | compat | {"REGS_NUMBER": btf.offset("pt_regs", "orig_ax")}
