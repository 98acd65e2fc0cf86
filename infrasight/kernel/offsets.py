"""The constants that bpf/ is compiled with: where the kernel keeps what we read, found in BTF, and numbers of the user-space interface."""

from __future__ import annotations

import platform

from infrasight.kernel.btf import Btf
from infrasight.kernel.syscalls import COMPAT_SPECIAL

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
    "TASK_FS": ("task_struct", "fs"),
    "TASK_SELF_EXEC_ID": ("task_struct", "self_exec_id"),
    "TASK_FLAGS": ("task_struct", "flags"),
    "TASK_SUM_EXEC_RUNTIME": ("task_struct", "se.sum_exec_runtime"),
    "TASK_NVCSW": ("task_struct", "nvcsw"),
    "TASK_NIVCSW": ("task_struct", "nivcsw"),
    "TASK_MIN_FLT": ("task_struct", "min_flt"),
    "TASK_MAJ_FLT": ("task_struct", "maj_flt"),
    "MM_BRK": ("mm_struct", "brk"),
    "SIGNAL_TTY": ("signal_struct", "tty"),
    "TTY_DRIVER": ("tty_struct", "driver"),
    "TTY_INDEX": ("tty_struct", "index"),
    "TTY_DRIVER_MAJOR": ("tty_driver", "major"),
    "TTY_DRIVER_MINOR_START": ("tty_driver", "minor_start"),
    "TASK_PERSONALITY": ("task_struct", "personality"),
    "CRED_EUID": ("cred", "euid"),
    "CRED_SUID": ("cred", "suid"),
    "CRED_SGID": ("cred", "sgid"),
    "CRED_EGID": ("cred", "egid"),
    "CRED_CAP_EFFECTIVE": ("cred", "cap_effective"),
    "TASK_NSPROXY": ("task_struct", "nsproxy"),
    "NSPROXY_MNT_NS": ("nsproxy", "mnt_ns"),
    "MNT_NS_ROOT": ("mnt_namespace", "root"),
    "MNT_NS_INUM": ("mnt_namespace", "ns.inum"),
    "FS_PWD": ("fs_struct", "pwd"),
    "FS_ROOT": ("fs_struct", "root"),
    "PATH_MNT": ("path", "mnt"),
    "PATH_DENTRY": ("path", "dentry"),
    "FILE_PATH": ("file", "f_path"),
    "MOUNT_MNT": ("mount", "mnt"),
    "MOUNT_PARENT": ("mount", "mnt_parent"),
    "MOUNT_POINT": ("mount", "mnt_mountpoint"),
    "VFSMOUNT_ROOT": ("vfsmount", "mnt_root"),
    "DENTRY_PARENT": ("dentry", "d_parent"),
    "DENTRY_NAME": ("dentry", "d_name"),
    "DENTRY_INODE": ("dentry", "d_inode"),
    "INODE_SB": ("inode", "i_sb"),
    "INODE_INO": ("inode", "i_ino"),
    "INODE_PRIVATE": ("inode", "i_private"),
    "INODE_NLINK": ("inode", "i_nlink"),
    "SUPER_BLOCK_MAGIC": ("super_block", "s_magic"),
    "MM_EXE_FILE": ("mm_struct", "exe_file"),
    "BINPRM_INTERP": ("linux_binprm", "interp"),
    "UNIX_PEER": ("unix_sock", "peer"),
    "UNIX_PATH": ("unix_sock", "path"),
    "UNIX_ADDRESS": ("unix_sock", "addr"),
    "UNIX_ADDRESS_LEN": ("unix_address", "len"),
    "UNIX_ADDRESS_NAME": ("unix_address", "name"),
    "CRED_UID": ("cred", "uid"),
    "CRED_GID": ("cred", "gid"),
    "CSS_SET_DFL_CGRP": ("css_set", "dfl_cgrp"),
    "CGROUP_KN": ("cgroup", "kn"),
    "CGROUP_ROOT": ("cgroup", "root"),
    "CGROUP_PARENT": ("cgroup", "self.parent"),
    "CGROUP_ROOT_HIERARCHY": ("cgroup_root", "hierarchy_id"),
    "CGROUP_ROOT_SUBSYS": ("cgroup_root", "subsys_mask"),
    "CSS_CGROUP": ("cgroup_subsys_state", "cgroup"),
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
    "SOCK_RCV_SADDR": ("sock", "__sk_common.skc_rcv_saddr"),
    "SOCK_V6_RCV_SADDR": ("sock", "__sk_common.skc_v6_rcv_saddr"),
    "SOCK_DADDR": ("sock", "__sk_common.skc_daddr"),
    "SOCK_V6_DADDR": ("sock", "__sk_common.skc_v6_daddr"),
    "SOCK_DPORT": ("sock", "__sk_common.skc_dport"),
    "SOCK_TYPE": ("sock", "sk_type"),
    "INET_SPORT": ("inet_sock", "inet_sport"),
    "SOCK_PROTOCOL": ("sock", "sk_protocol"),
}
"""Constant -> structure and member."""
OPTIONAL: dict[str, tuple[str, str]] = {
    "TASK_LOGINUID": ("task_struct", "loginuid"),
    "TASK_SESSIONID": ("task_struct", "sessionid"),
    "TASK_RCHAR": ("task_struct", "ioac.rchar"),
    "TASK_WCHAR": ("task_struct", "ioac.wchar"),
    "BINPRM_FDPATH": ("linux_binprm", "fdpath"),
}
"""The same, of what a kernel can have been built without (CONFIG_AUDIT, CONFIG_TASK_XACCT), or be too old for (before Linux 5.9)."""
SIZES = {"UPID_SIZE": "upid", "INODE_SIZE": "inode"}
"""Constant -> structure."""
INTERFACE = {
    "AF_UNIX": 1,
    "AF_INET": 2,
    "AF_INET6": 10,
    "AF_KEY": 15,
    "AF_NETLINK": 16,
    "AF_PACKET": 17,
    "AF_ALG": 38,
    "AF_VSOCK": 40,
    "SOCK_DGRAM": 2,
    "SOCK_RAW": 3,
    "SOCK_TYPE_MASK": 0xF,
    "IPPROTO_UDP": 17,
    "MSG_PEEK": 2,
    "F_DUPFD": 0,
    "F_DUPFD_CLOEXEC": 1030,
    "AT_FDCWD": -100,
    "AT_REMOVEDIR": 0x200,
    "AT_EMPTY_PATH": 0x1000,
    "O_WRONLY": 0o1,
    "O_CREAT": 0o100,
    "O_TRUNC": 0o1000,
    "PF_EXITING": 0x4,
    "PF_KTHREAD": 0x200000,
    "TASK_DEAD": 0x80,
    "MREMAP_DONTUNMAP": 4,
    "TMPFS_MAGIC": 0x01021994,
    "OVERLAYFS_MAGIC": 0x794C7630,
    # "memfd:", as a number
    "MEMFD_NAME": int.from_bytes(b"memfd:", "little"),
    "NSFS_MAGIC": 0x6E736673,
    "PIDFS_MAGIC": 0x50494446,
    "PROT_READ": 1,
    "PROT_EXEC": 4,
    "MAP_ANONYMOUS": 32,
    "READ_IMPLIES_EXEC": 0x400000,
    "S_IFMT": 0o170000,
    "S_IFSOCK": 0o140000,
}
"""Numbers that are the same on every kernel: of the system call interface (include/uapi), and of what tasks are (include/linux/sched.h)."""
EXIT_TELLS_GROUP_DEAD_SINCE = 3
"""Arguments of the exit tracepoint's function, its private data included, since it says whether the whole group died."""


def constants(btf: Btf) -> dict[str, int]:
    """All constants, for the kernel that `btf` describes. KernelError when it lacks a structure or member."""
    found = {name: btf.offset(structure, member) for name, (structure, member) in OFFSETS.items()}
    found |= {name: btf.offset(*member) for name, member in OPTIONAL.items() if btf.has(*member)}
    found |= {name: btf.size(structure) for name, structure in SIZES.items()}
    if btf.arguments("btf_trace_sched_process_exit") >= EXIT_TELLS_GROUP_DEAD_SINCE:
        found["EXIT_TELLS_GROUP_DEAD"] = 1
    if btf.mentions("BPF_FUNC_get_current_task_btf") and btf.mentions("BPF_FUNC_task_pt_regs"):
        found["TYPED_CURRENT_TASK"] = 1
    found["TASK_STATE"] = btf.offset("task_struct", "__state" if btf.has("task_struct", "__state") else "state")  # since Linux 5.14
    found |= _dentry(btf) | _namespace(btf) | _pids(btf)
    return found | _registers(btf, platform.machine()) | INTERFACE


def _dentry(btf: Btf) -> dict[str, int]:
    """Where a directory entry has short names, how many bytes they take with their NUL, and the span from its parent to there, read at once."""
    member = "d_shortname" if btf.has("dentry", "d_shortname") else "d_iname"  # since Linux 6.14
    inlined, size = btf.offset("dentry", member), btf.member_size("dentry", member)
    return {"DENTRY_INLINE": inlined, "DENTRY_INLINE_BYTES": size, "DENTRY_SPAN": inlined + size - btf.offset("dentry", "d_parent")}


def _pids(btf: Btf) -> dict[str, int]:
    """Which controller limits processes, and where it is kept what cgroup of its a task is in; nothing on a kernel without (CONFIG_CGROUP_PIDS)."""
    number = btf.enumerator("cgroup_subsys_id", "pids_cgrp_id")
    if number is None:
        return {}
    return {"CGROUP_PIDS": number, "CSS_SET_PIDS": btf.offset("css_set", "subsys") + 8 * number}


def _namespace(btf: Btf) -> dict[str, int]:
    """Where it is kept of what type a namespace is: in itself (since Linux 6.18), before in what it can do; and the number that no other mount
    namespace has had, on kernels that give them one."""
    numbers = (("mnt_namespace", member) for member in ("ns.ns_id", "seq"))  # since, and before Linux 6.18
    found = next(({"MNT_NS_NUMBER": btf.offset(*number)} for number in numbers if btf.has(*number)), {})
    if btf.has("ns_common", "ns_type"):
        return found | {"NAMESPACE_TYPE": btf.offset("ns_common", "ns_type")}
    return found | {"NAMESPACE_OPS": btf.offset("ns_common", "ops"), "NAMESPACE_OPS_TYPE": btf.offset("proc_ns_operations", "type")}


def _registers(btf: Btf, machine: str) -> dict[str, int]:
    """Where a system call's arguments lie in struct pt_regs, and, where 32-bit calls can be followed, how one is known and where they have theirs."""
    if machine == "aarch64":
        first = btf.offset("pt_regs", "regs")
        return {"REGS_NUMBER": btf.offset("pt_regs", "syscallno")} | {f"REGS_ARG{place}": first + 8 * place for place in range(6)}

    def at(prefix: str, registers: str) -> dict[str, int]:
        return {f"{prefix}{place}": btf.offset("pt_regs", register) for place, register in enumerate(registers.split())}

    compat = {"TASK_COMPAT_WORD": btf.offset("task_struct", "thread_info.status"), "COMPAT_BIT": 2}  # TS_COMPAT
    number = {"REGS_NUMBER": btf.offset("pt_regs", "orig_ax")}
    return number | at("REGS_ARG", "di si dx r10 r8 r9") | at("COMPAT_ARG", "bx cx dx si di bp") | compat | COMPAT_SPECIAL
