"""What InfraSight needs of a machine, each thing checked by looking. Nothing is changed, but that probes are attached for an instant."""

from __future__ import annotations

import asyncio
import ctypes
import importlib.util
import os
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from infrasight.cli.ask import client_of
from infrasight.cli.options import Reach
from infrasight.errors import AccessDenied, InfraSightError, KernelError
from infrasight.trust import Cluster

CAPABILITIES = {"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_PTRACE": 19, "CAP_PERFMON": 38, "CAP_BPF": 39}  # include/uapi/linux/capability.h
_SYS_ADMIN = 21
_COVERED_BY_SYS_ADMIN = {"CAP_PERFMON", "CAP_BPF"}
_STA_UNSYNC = 0x40  # include/uapi/linux/timex.h
_OLDEST = 1_735_689_600
"""1 January 2025 in seconds since the epoch: a clock before it has never been set."""


@dataclass(frozen=True)
class Check:
    """One thing looked at. `mend` says what to do when it is not `ok`."""

    name: str
    ok: bool
    detail: str
    mend: str = ""


def kernel() -> Check:
    """Which kernel it is. Features are checked, versions never."""
    return Check("kernel", platform.system() == "Linux", f"{platform.system()} {platform.release()} {platform.machine()}", "use Linux")


def rights(status: Path = Path("/proc/self/status")) -> Check:
    """Whether this process may trace: it has the capabilities, by being root or otherwise."""
    fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    held = int(fields["CapEff"], 16)
    admin = held >> _SYS_ADMIN & 1
    missing = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1 and not (admin and name in _COVERED_BY_SYS_ADMIN)]
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    detail = f"{who} without {', '.join(missing)}" if missing else f"{who} with {', '.join(CAPABILITIES)}"
    return Check("rights", not missing, detail, "run as root; in a container give it these capabilities, or --privileged")


def btf(path: Path = Path("/sys/kernel/btf/vmlinux")) -> Check:
    """Whether the kernel describes its types."""
    if os.access(path, os.R_OK):
        return Check("btf", True, f"{path} can be read")
    mend = (
        "run as root" if path.exists() else "use a kernel built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels are; in a container mount /sys"
    )
    return Check("btf", False, f"{path} {'cannot be read' if path.exists() else 'is missing'}", mend)


def tracefs() -> Check:
    """Whether tracepoints are listed."""
    from infrasight.kernel.source import tracefs as mounted  # brings numpy along

    try:
        return Check("tracefs", True, f"{mounted()} is mounted")
    except (KernelError, OSError) as error:
        return Check("tracefs", False, str(error), "as root: mount -t tracefs none /sys/kernel/tracing")


def bcc() -> Check:
    """Whether BCC's Python module is there, and is BCC and not the unrelated package of its name. Not imported: that takes its time and memory."""
    mend = "apt-get install python3-bpfcc, and a virtual environment that sees it (--system-site-packages); not the pip package called bcc"
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return Check("bcc", False, "the Python module bcc is missing", mend)
    folder = Path(spec.origin).parent
    if not (folder / "libbcc.py").is_file():
        return Check("bcc", False, f"{folder} is another package of this name", "pip uninstall bcc; " + mend)
    said = folder / "version.py"
    version = said.read_text().split("=")[-1].strip(" '\n") if said.is_file() else "of unknown version"
    return Check("bcc", True, f"{version} in {folder}")


async def probes() -> list[Check]:
    """Whether each probe attaches, found by attaching it."""
    from infrasight.kernel.check import check  # brings numpy along

    if os.geteuid() != 0:
        return [Check("probes", False, "not tried: only root can", "run infrasight doctor as root")]
    mend = "see the checks above; when they are all right, this kernel lacks what the probe hangs on, and the others work without it"
    return [Check(f"probe {name}", ok, detail, mend) for name, ok, detail in await check()]


async def server(reach: Reach) -> list[Check]:
    """Whether a server answers, and whether its store works."""
    where = f"{reach.server_addr}:{reach.server_port}"
    try:
        async with asyncio.timeout(5), client_of(reach) as client:
            status = await client.status()
    except (InfraSightError, TimeoutError) as error:
        mend = "start one: infrasight up; or say where it is: --server-addr, --server-port"
        return [Check("server", False, str(error) or f"{where} does not answer", mend)]
    up = Check("server", True, f"version {status.version} at {where}, for {status.uptime_s:,.0f} s, {len(status.nodes)} nodes")
    stored = f"{sum(kind.rows for kind in status.kinds):,} rows stored since the server started"
    mend = "see the server's log; free disk space or mend the database, then restart the server"
    return [up, Check("store", status.store_reachable, stored if status.store_reachable else status.store_problem, mend)]


async def kubernetes(cluster: Cluster) -> list[Check]:
    """Whether the API server tells of the pods of this node, if it is to be asked."""
    mend = "see that --kubernetes-api, --kubernetes-ca and --kubernetes-token-file are right, and that the server can be reached from here"
    try:
        if (api := cluster.kubernetes) is None:
            return []
        pods = await api.count()
    except AccessDenied as error:
        return [Check("kubernetes", False, str(error), "give the service account the role of docs/CONTAINERS.md (deploy/kubernetes-pods.yaml)")]
    except InfraSightError as error:
        return [Check("kubernetes", False, str(error), mend)]
    found = f"{api.url} tells of {pods} pods of node {cluster.node}"
    return [Check("kubernetes", pods > 0, found, "give the name that Kubernetes has for this node: --node-name, or NODE_NAME")]


def directory(path: Path) -> Check:
    """Whether events can be kept there."""
    existing = next(each for each in (path, *path.absolute().parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Check("data", False, f"{existing}: {error.strerror}", "run as root, or choose another directory with --data-dir")
    space = os.statvfs(existing)
    return Check("data", True, f"{path} can be written, {space.f_bavail * space.f_frsize / 1e9:,.1f} GB free")


def clock() -> Check:
    """Whether the clock has been set. Whether something keeps it right is only told: inside a container one cannot know."""
    timex = ctypes.create_string_buffer(256)  # struct timex, all zero: ask, change nothing
    ctypes.CDLL(None).adjtimex(timex)
    unsynced = int.from_bytes(timex.raw[40:44], "little") & _STA_UNSYNC  # its `status`, on 64-bit machines
    now = time.time()
    detail = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(now))} UTC, {'not ' if unsynced else ''}kept by a time service"
    return Check("clock", now > _OLDEST, detail, "set the clock: timedatectl set-ntp true")
