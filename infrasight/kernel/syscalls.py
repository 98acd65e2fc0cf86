"""Names and numbers of system calls, by machine. A call that a machine does not have is left out of the kernel side there.

From arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, and include/uapi/asm-generic/unistd.h of the kernel: numbers are never given to
another call. In order of number; a number before a name is where a gap ends.
"""

from __future__ import annotations

import platform
from functools import cache

from infrasight.schema.events.syscall_freq import CALL_NUMBERS as CALL_NUMBERS

_X86_64 = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn ioctl pread64 pwrite64
readv writev access pipe select sched_yield mremap msync mincore madvise shmget shmat shmctl dup dup2 pause nanosleep getitimer alarm
setitimer getpid sendfile socket connect accept sendto recvfrom sendmsg recvmsg shutdown bind listen getsockname getpeername socketpair
setsockopt getsockopt clone fork vfork execve exit wait4 kill uname semget semop semctl shmdt msgget msgsnd msgrcv msgctl fcntl flock fsync
fdatasync truncate ftruncate getdents getcwd chdir fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown
lchown umask gettimeofday getrlimit getrusage sysinfo times ptrace getuid syslog getgid setuid setgid geteuid getegid setpgid getppid
getpgrp setsid setreuid setregid getgroups setgroups setresuid getresuid setresgid getresgid getpgid setfsuid setfsgid getsid capget capset
rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack utime mknod uselib personality ustat statfs fstatfs sysfs
getpriority setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval mlock munlock mlockall munlockall vhangup modify_ldt pivot_root _sysctl prctl arch_prctl adjtimex setrlimit chroot
sync acct settimeofday mount umount2 swapon swapoff reboot sethostname setdomainname iopl ioperm create_module init_module delete_module
get_kernel_syms query_module quotactl nfsservctl getpmsg putpmsg afs_syscall tuxcall security gettid readahead setxattr lsetxattr fsetxattr
getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr lremovexattr fremovexattr tkill time futex sched_setaffinity
sched_getaffinity set_thread_area io_setup io_destroy io_getevents io_submit io_cancel get_thread_area lookup_dcookie epoll_create
epoll_ctl_old epoll_wait_old remap_file_pages getdents64 set_tid_address restart_syscall semtimedop fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl tgkill
utimes vserver mbind set_mempolicy get_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr kexec_load waitid
add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch migrate_pages openat mkdirat mknodat
fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6 ppoll unshare set_robust_list
get_robust_list splice tee sync_file_range vmsplice move_pages utimensat epoll_pwait signalfd timerfd_create eventfd fallocate
timerfd_settime timerfd_gettime accept4 signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev rt_tgsigqueueinfo
perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs sendmmsg setns
getcpu process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create
kexec_file_load bpf execveat userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx
io_pgetevents rseq 424:pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick
pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset
landlock_add_rule landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2
map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal
setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
"""
_ARM64 = """
io_setup io_destroy io_submit io_cancel io_getevents setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr
flistxattr removexattr lremovexattr fremovexattr getcwd lookup_dcookie eventfd2 epoll_create1 epoll_ctl epoll_pwait dup dup3 fcntl
inotify_init1 inotify_add_watch inotify_rm_watch ioctl ioprio_set ioprio_get flock mknodat mkdirat unlinkat symlinkat linkat renameat
umount2 mount pivot_root nfsservctl statfs fstatfs truncate ftruncate fallocate faccessat chdir fchdir chroot fchmod fchmodat fchownat
fchown openat close vhangup pipe2 quotactl getdents64 lseek read write readv writev pread64 pwrite64 preadv pwritev sendfile pselect6 ppoll
signalfd4 vmsplice splice tee readlinkat newfstatat fstat sync fsync fdatasync sync_file_range2 timerfd_create timerfd_settime
timerfd_gettime utimensat acct capget capset personality exit exit_group waitid set_tid_address unshare futex set_robust_list
get_robust_list nanosleep getitimer setitimer kexec_load init_module delete_module timer_create timer_gettime timer_getoverrun timer_settime
timer_delete clock_settime clock_gettime clock_getres clock_nanosleep syslog ptrace sched_setparam sched_setscheduler sched_getscheduler
sched_getparam sched_setaffinity sched_getaffinity sched_yield sched_get_priority_max sched_get_priority_min sched_rr_get_interval
restart_syscall kill tkill tgkill sigaltstack rt_sigsuspend rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo
rt_sigreturn setpriority getpriority reboot setregid setgid setreuid setuid setresuid getresuid setresgid getresgid setfsuid setfsgid times
setpgid getpgid getsid setsid getgroups setgroups uname sethostname setdomainname getrlimit setrlimit getrusage umask prctl getcpu
gettimeofday settimeofday adjtimex getpid getppid getuid geteuid getgid getegid gettid sysinfo mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr msgget msgctl msgrcv msgsnd semget semctl semtimedop semop shmget shmctl shmat shmdt socket
socketpair bind listen accept connect getsockname getpeername sendto recvfrom setsockopt getsockopt shutdown sendmsg recvmsg readahead brk
munmap mremap add_key request_key keyctl clone execve mmap fadvise64 swapon swapoff mprotect msync mlock munlock mlockall munlockall mincore
madvise remap_file_pages mbind get_mempolicy set_mempolicy migrate_pages move_pages rt_tgsigqueueinfo perf_event_open accept4 recvmmsg
260:wait4 prlimit64 fanotify_init fanotify_mark name_to_handle_at open_by_handle_at clock_adjtime syncfs setns sendmmsg process_vm_readv
process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf execveat userfaultfd membarrier
mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx io_pgetevents rseq kexec_file_load 403:clock_gettime64
clock_settime64 clock_adjtime64 408:timer_gettime64 timer_settime64 timerfd_gettime64 timerfd_settime64 424:pidfd_send_signal io_uring_setup
io_uring_enter io_uring_register open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd
faccessat2 process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self
memfd_secret process_mrelease futex_waitv set_mempolicy_home_node cachestat fchmodat2 454:futex_wake futex_wait futex_requeue statmount
listmount lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat open_tree_attr
file_getattr file_setattr
"""
_I386 = """
restart_syscall exit fork read write open close wait4 creat link unlink execve chdir time mknod chmod lchown 18:stat lseek getpid mount
umount2 setuid getuid 26:ptrace alarm fstat pause utime 33:access 36:sync kill rename mkdir rmdir dup pipe times 45:brk setgid getgid
49:geteuid getegid acct umount2 54:ioctl fcntl 57:setpgid 59:uname umask chroot ustat dup2 getppid getpgrp setsid rt_sigaction 70:setreuid
setregid rt_sigsuspend rt_sigpending sethostname setrlimit getrlimit getrusage gettimeofday settimeofday getgroups setgroups select symlink
lstat readlink uselib swapon reboot 90:mmap munmap truncate ftruncate fchmod fchown getpriority setpriority 99:statfs fstatfs ioperm
103:syslog setitimer getitimer stat lstat fstat uname iopl vhangup 114:wait4 swapoff sysinfo 118:fsync rt_sigreturn clone setdomainname
uname modify_ldt adjtimex mprotect rt_sigprocmask create_module init_module delete_module get_kernel_syms quotactl getpgid fchdir 135:sysfs
personality afs_syscall setfsuid setfsgid lseek getdents select flock msync readv writev getsid fdatasync _sysctl mlock munlock mlockall
munlockall sched_setparam sched_getparam sched_setscheduler sched_getscheduler sched_yield sched_get_priority_max sched_get_priority_min
sched_rr_get_interval nanosleep mremap setresuid getresuid 167:query_module poll nfsservctl setresgid getresgid prctl rt_sigreturn
rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend pread64 pwrite64 chown getcwd capget capset
sigaltstack sendfile getpmsg putpmsg vfork getrlimit mmap truncate ftruncate stat lstat fstat lchown getuid getgid geteuid getegid setreuid
setregid getgroups setgroups fchown setresuid getresuid setresgid getresgid chown setuid setgid setfsuid setfsgid pivot_root mincore madvise
getdents64 fcntl 224:gettid readahead setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr removexattr
lremovexattr fremovexattr tkill sendfile futex sched_setaffinity sched_getaffinity set_thread_area get_thread_area io_setup io_destroy
io_getevents io_submit io_cancel fadvise64 252:exit_group lookup_dcookie epoll_create epoll_ctl epoll_wait remap_file_pages set_tid_address
timer_create timer_settime timer_gettime timer_getoverrun timer_delete clock_settime clock_gettime clock_getres clock_nanosleep statfs
fstatfs tgkill utimes fadvise64 vserver mbind get_mempolicy set_mempolicy mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
mq_getsetattr kexec_load waitid 286:add_key request_key keyctl ioprio_set ioprio_get inotify_init inotify_add_watch inotify_rm_watch
migrate_pages openat mkdirat mknodat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat fchmodat faccessat pselect6
ppoll unshare set_robust_list get_robust_list splice sync_file_range tee vmsplice move_pages getcpu epoll_pwait utimensat signalfd
timerfd_create eventfd fallocate timerfd_settime timerfd_gettime signalfd4 eventfd2 epoll_create1 dup3 pipe2 inotify_init1 preadv pwritev
rt_tgsigqueueinfo perf_event_open recvmmsg fanotify_init fanotify_mark prlimit64 name_to_handle_at open_by_handle_at clock_adjtime syncfs
sendmmsg setns process_vm_readv process_vm_writev kcmp finit_module sched_setattr sched_getattr renameat2 seccomp getrandom memfd_create bpf
execveat socket socketpair bind connect listen accept4 getsockopt setsockopt getsockname getpeername sendto sendmsg recvfrom recvmsg
shutdown userfaultfd membarrier mlock2 copy_file_range preadv2 pwritev2 pkey_mprotect pkey_alloc pkey_free statx arch_prctl io_pgetevents
rseq 393:semget semctl shmget shmctl shmat shmdt msgget msgsnd msgrcv msgctl clock_gettime clock_settime clock_adjtime clock_getres
clock_nanosleep timer_gettime timer_settime timerfd_gettime timerfd_settime utimensat pselect6 ppoll 416:io_pgetevents recvmmsg mq_timedsend
mq_timedreceive semtimedop rt_sigtimedwait futex sched_rr_get_interval pidfd_send_signal io_uring_setup io_uring_enter io_uring_register
open_tree move_mount fsopen fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2 process_madvise
epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule landlock_restrict_self memfd_secret process_mrelease
futex_waitv set_mempolicy_home_node cachestat fchmodat2 454:futex_wake futex_wait futex_requeue statmount listmount lsm_get_self_attr
lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat removexattrat open_tree_attr file_getattr file_setattr
481:socket bind connect listen accept getsockname getpeername socketpair sendto recvfrom sendto recvfrom shutdown setsockopt getsockopt
sendmsg recvmsg accept4 recvmmsg sendmmsg
"""
"""32-bit programs on x86-64, each call by the name that it has in 64-bit ones. From 480 on: what socketcall(n) is taken for."""
_X32 = """
rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack
timer_create mq_notify kexec_load waitid set_robust_list get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg
process_vm_readv process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2
"""
"""The calls that have a number of their own in x32 programs, from 512 on."""
X32_OWN_NUMBERS = len(_X32.split())
COMPAT_SPECIAL = {"COMPAT_SOCKETCALL": 102, "COMPAT_SOCKETCALLS": 480, "COMPAT_OLD_MMAP": 90, "COMPAT_MMAP2": 192, "COMPAT_UMOUNT": 22}
"""Calls of 32-bit programs whose arguments differ."""
_SHORT_IDS = (23, 46, 70, 71, 138, 139, 164, 170)
COMPAT_SPECIAL |= {f"COMPAT_SHORT_IDS_{word}": sum(1 << each % 64 for each in _SHORT_IDS if each // 64 == word) for word in range(3)}
"""And those whose arguments are ids of 16 bits, a bit each."""


def _numbered(text: str) -> dict[int, str]:
    found, following = {}, 0
    for word in text.split():
        number, _, name = word.rpartition(":")
        following = int(number) if number else following
        found[following] = name
        following += 1
    return found


@cache
def names(machine: str = platform.machine()) -> dict[int, str]:
    """Number -> name, of the calls of a machine."""
    return _numbered({"x86_64": _X86_64, "aarch64": _ARM64}.get(machine, ""))


@cache
def _numbers(machine: str) -> dict[str, int]:
    return {name: number for number, name in names(machine).items()}


def number(call: str) -> int | None:
    """The number of a call on this machine; None when it has no such call."""
    return _numbers(platform.machine()).get(call)


def compat_numbers() -> dict[int, int]:
    """Number in a 32-bit program -> number in a 64-bit one; empty where 32-bit calls are not followed."""
    if platform.machine() != "x86_64":
        return {}
    return {each: native for each, name in _numbered(_I386).items() if (native := number(name)) is not None}


def x32_numbers() -> dict[int, int]:
    """Place among the numbers that x32 programs have of their own -> number in a 64-bit one; empty where there is no x32."""
    found = ((place, number(name)) for place, name in enumerate(_X32.split() if platform.machine() == "x86_64" else ()))
    return {place: native for place, native in found if native is not None}
