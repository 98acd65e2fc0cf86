"""What this machine can do, by name.

`@pytest.mark.needs("root", "bpf")` skips a test where one of them is missing; the run ends with a list of what was.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import mmap
import os
import platform
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest

os.environ["INFRASIGHT_SPOOL_DIR"] = "none"  # what one test's node leaves is not another's; a test that wants a spool says where
hypothesis.settings.register_profile("tests", deadline=None)  # how long an example takes says more of what else runs here
hypothesis.settings.load_profile("tests")

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280}  # linux/arch/*/include/asm/unistd: __NR_bpf
_BPF_MAP_CREATE = 0  # linux/include/uapi/linux/bpf.h: enum bpf_cmd
_BPF_MAP_TYPE_RINGBUF = 27  # the same: enum bpf_map_type
_MNT_DETACH = 2  # linux/include/linux/fs.h
_libc = ctypes.CDLL(None, use_errno=True)


def _can_create_a_ring_buffer() -> bool:
    """Whether the kernel lets this process create a BPF ring buffer, asked by creating one."""
    number = _BPF_SYSCALL.get(platform.machine())
    if number is None:
        return False
    attributes = (ctypes.c_uint32 * 32)(_BPF_MAP_TYPE_RINGBUF, 0, 0, os.sysconf("SC_PAGE_SIZE"))  # type, key size, value size, bytes
    fd = _libc.syscall(number, _BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes))
    if fd < 0:
        return False
    os.close(fd)
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _cgroup_mounts() -> list[Path]:
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    return [Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"]


def _can_make_a_cgroup() -> bool:
    """Whether this process may make a cgroup in the v2 hierarchy, wherever that is mounted, asked by making one."""
    for path in (mount / f"infrasight-test-can-{os.getpid()}" for mount in _cgroup_mounts()):
        try:
            path.mkdir()
            path.rmdir()
        except OSError:
            continue
        return True
    return False


def _has_cgroup1() -> bool:
    from infrasight.node.containers.hierarchy import hierarchies  # where it is needed: most runs are of something else

    return any(each.number for each in hierarchies())


def _takes_32_bit_calls() -> bool:
    """Whether the kernel takes calls of 32-bit programs, asked by having a child make getpid so, which kills it where the kernel does not."""
    if platform.machine() != "x86_64":
        return False
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("53b814000000cd805bc3"))  # push rbx; mov eax, 20 (getpid); int 0x80; pop rbx; ret
    call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    child = os.fork()
    if not child:
        os._exit(0 if call() == os.getpid() else 1)
    return os.waitpid(child, 0)[1] == 0


def _can_mount() -> bool:
    """Whether this process may mount a file system, asked by mounting one."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.fsencode(directory)
        if _libc.mount(b"none", path, b"tmpfs", 0, None):
            return False
        _libc.umount2(path, _MNT_DETACH)
        return True


def _module(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


def _command(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


CAPABILITIES: dict[str, tuple[Callable[[], bool], str]] = {
    "root": (lambda: os.geteuid() == 0, "run as root"),
    "btf": (lambda: os.access("/sys/kernel/btf/vmlinux", os.R_OK), "a kernel with CONFIG_DEBUG_INFO_BTF"),
    "tracefs": (lambda: Path("/sys/kernel/tracing/events/syscalls").is_dir(), "mount -t tracefs none /sys/kernel/tracing"),
    "bpf": (_can_create_a_ring_buffer, "a kernel that lets this user create BPF ring buffers"),
    "bcc": (_module("bcc"), "apt-get install python3-bpfcc"),
    "compat": (_takes_32_bit_calls, "x86-64, and a kernel with CONFIG_IA32_EMULATION"),
    "chosen_pid": (lambda: os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), "a kernel with CONFIG_CHECKPOINT_RESTORE, and root"),
    "mount": (_can_mount, "the right to mount a tmpfs (CAP_SYS_ADMIN)"),
    "cgroup1": (_has_cgroup1, "a mounted cgroup v1 hierarchy of the pids controller"),
    "cgroup2": (_can_make_a_cgroup, "a writable cgroup v2 hierarchy: mount -t cgroup2 none /sys/fs/cgroup/unified"),
    "ipv6": (_has_ipv6, "an IPv6 loopback address"),
    "apt": (_command("apt-get"), "Debian or a relative of it"),
    "gcc": (_command("gcc"), "apt-get install gcc libc6-dev"),
    "bpftrace": (_command("bpftrace"), "apt-get install bpftrace"),
    "opensnoop": (_command("opensnoop"), "apt-get install libbpf-tools"),
    "strace": (_command("strace"), "apt-get install strace"),
    "busybox": (_command("busybox"), "apt-get install busybox-static"),
    "containerd": (lambda: all(_command(name)() for name in ("containerd", "ctr", "runc")), "apt-get install containerd runc"),
    "podman": (_command("podman"), "apt-get install podman"),
    "ip": (_command("ip"), "apt-get install iproute2"),
    "openssl": (_command("openssl"), "apt-get install openssl"),
    "pandas": (_module("pandas"), "pip install pandas, which pyarrow makes nanosecond times with"),
    "grpc_tools": (_module("grpc_tools"), "pip install grpcio-tools"),
    "betterproto2_compiler": (_module("betterproto2_compiler"), "pip install betterproto2_compiler"),
    "clickhouse": (_command("clickhouse-server"), "apt-get install clickhouse-server"),
    "kubernetes": (
        lambda: bool(os.environ.get("INFRASIGHT_TEST_KUBERNETES")),
        "kubectl proxy to a cluster for tests, and INFRASIGHT_TEST_KUBERNETES=http://127.0.0.1:8001",
    ),
    "libchdb": (
        lambda: Path(os.environ.get("INFRASIGHT_LIBCHDB", "/nowhere")).is_file(),
        "npm pack @chdb/lib-linux-x64-gnu, unpack it, and say INFRASIGHT_LIBCHDB=/where/it/is/libchdb.so",
    ),
}
_SKIPPED = "missing capability "


@cache
def has(name: str) -> bool:
    """Whether this machine has the named capability; asked once."""
    return CAPABILITIES[name][0]()


def worker_cgroups() -> dict[str, Path]:
    """A cgroup for each of the processes that this run has its tests in at the same time, by name. Others may run tests on the machine meanwhile.

    Tracing sees the whole machine: what one of them does would be in the rings of the others, and fill them (tests/kernel/tap.py).
    """
    count, run = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")), os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
    return {f"gw{number}": _cgroup_mounts()[0] / f"infrasight-tests-{run}-gw{number}" for number in range(count)} if has("cgroup2") else {}


def pytest_configure() -> None:
    for name, path in worker_cgroups().items():
        path.mkdir(exist_ok=True)
        if name == os.environ["PYTEST_XDIST_WORKER"]:
            (path / "cgroup.procs").write_text(str(os.getpid()))


def pytest_unconfigure() -> None:
    own = worker_cgroups().get(os.environ.get("PYTEST_XDIST_WORKER", ""))
    if own:
        (own.parent / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):  # something that a test started may be there still
            own.rmdir()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if name not in CAPABILITIES:
                raise pytest.UsageError(f"{item.nodeid}: no capability is called {name!r}; tests/conftest.py lists them")
            if not has(name):
                pytest.skip(_SKIPPED + name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [report.longrepr[2] for report in terminalreporter.getreports("skipped") if isinstance(report.longrepr, tuple)]
    missing = Counter(reason.split(_SKIPPED, 1)[1] for reason in reasons if _SKIPPED in reason)
    if not missing:
        return
    terminalreporter.section("missing capabilities")
    for name, skipped in sorted(missing.items()):
        terminalreporter.line(f"{name}: {skipped} skipped; needs: {CAPABILITIES[name][1]}")
