"""Tracers, ours and the peers: started, known to be attached, counted, ended."""

import os
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import processes
from tests.bench.loads import Load

NOWHERE = Path(os.devnull)
READY_S = 30.0
SETTLED_S = 0.4  # descriptors unchanged for so long: nothing more is being attached
LOST = re.compile(rb"lost (\d+) events", re.IGNORECASE)


class TracerFailed(Exception):
    """A tracer is not there, ended, or was not ready in time."""


@dataclass(frozen=True)
class Counts:
    """What a tracer saw of a load, and what it says that it lost."""

    seen: int
    lost: int


class Running:
    """A tracer that is attached."""

    def __init__(self, process: subprocess.Popen[bytes], sink: Path, errors: Path) -> None:
        self._process = process
        self.pid = process.pid
        self.sink = sink
        self.errors = errors

    def alive(self) -> bool:
        return self._process.poll() is None

    def cpu_s(self) -> float:
        return processes.cpu_s(self.pid)

    def memory(self) -> processes.Memory:
        return processes.memory(self.pid)

    def wait_idle(self) -> None:
        processes.wait_idle(self.pid)


class Tracer(ABC):
    """A command that traces the machine until it is ended."""

    name: str
    counts_loss = True

    @abstractmethod
    def missing(self) -> str | None:
        """What has to be installed first, in words; None when all is there."""

    @abstractmethod
    def command(self, sink: Path) -> list[str]:
        """The command line, for output to `sink`."""

    @abstractmethod
    def is_ready(self, running: Running) -> bool:
        """Whether it is attached by now."""

    @abstractmethod
    def counts(self, running: Running, load: Load) -> Counts:
        """What it saw and lost of `load`; asked after it has ended."""

    def attached(self, running: Running) -> None:  # noqa: B027  # most need nothing here
        """Called once it is ready."""

    def ending(self, running: Running) -> None:  # noqa: B027  # most need nothing here
        """Called before it is ended."""

    @contextmanager
    def attach(self, sink: Path = NOWHERE, cpus: frozenset[int] | None = None) -> Iterator[Running]:
        """Start it (on `cpus` only), wait until it is attached, end it. Raises TracerFailed."""
        if missing := self.missing():
            raise TracerFailed(f"{self.name}: {missing}")
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            errors = Path(folder) / "stderr"
            with errors.open("wb") as stderr, sink.open("wb") as stdout:
                process = subprocess.Popen(self.command(sink), stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, cwd=ROOT)
            running = Running(process, sink, errors)
            try:
                if cpus:
                    os.sched_setaffinity(process.pid, cpus)
                if not processes.wait_until(lambda: not running.alive() or self.is_ready(running), READY_S) or not running.alive():
                    raise TracerFailed(f"{self.name}: not attached: {_last_words(errors)}")
                self.attached(running)
                yield running
                if not running.alive():
                    raise TracerFailed(f"{self.name}: ended by itself: {_last_words(errors)}")
                self.ending(running)
            finally:
                processes.stop(process)
                self._said = errors.read_bytes()


ROOT = Path(__file__).parents[2]


class Peer(Tracer):
    """A tracer of the distribution, which tells nobody when it is attached: we look at what it holds."""

    def __init__(self, name: str, package: str, *command: str, output_option: str | None = None) -> None:
        self.name = name
        self._package = package
        self._command = command
        self._output_option = output_option
        self.counts_loss = output_option is None

    def missing(self) -> str | None:
        absent = [word for word in self._command if word.startswith("/") or word == self._command[0] if shutil.which(word) is None]
        return f"{absent[0]} is not there (package {self._package})" if absent else None

    def command(self, sink: Path) -> list[str]:
        return [*self._command, *([self._output_option, str(sink)] if self._output_option else [])]

    def is_ready(self, running: Running) -> bool:
        held = _anonymous_descriptors(running.pid)
        processes.wait_until(lambda: _anonymous_descriptors(running.pid) != held, SETTLED_S)
        return any("perf_event" in one for one in held) and held == _anonymous_descriptors(running.pid)

    def counts(self, running: Running, load: Load) -> Counts:
        mark, seen, lost = load.folder.encode(), 0, _lost(self._said)
        if running.sink != NOWHERE:
            with running.sink.open("rb") as lines:
                for line in lines:
                    seen += mark in line
                    lost += _lost(line) if line[:4].lower() == b"lost" else 0
        return Counts(seen, lost)


def _last_words(errors: Path) -> str:
    return errors.read_text(errors="replace").strip()[-400:] or "it says nothing"


def _lost(said: bytes) -> int:
    return sum(map(int, LOST.findall(said)))


def _anonymous_descriptors(pid: int) -> list[str]:
    """The perf events, programs, maps and polls that a process holds."""
    try:
        links = [os.readlink(descriptor) for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return []
    return sorted(link for link in links if link.startswith("anon_inode:"))


class Together:
    """Tracers that are attached at once, where one alone sees less than ours does."""

    def __init__(self, *tracers: Tracer) -> None:
        self._tracers = tracers
        self.name = " + ".join(tracer.name for tracer in tracers)

    @contextmanager
    def attach(self) -> Iterator[None]:
        """As Tracer.attach, of each."""
        with ExitStack() as stack:
            for tracer in self._tracers:
                stack.enter_context(tracer.attach())
            yield


class Strace(Tracer):
    """Counts the system calls of the process that starts it and, what matters, of all that are started from then on."""

    name = "strace -c -f"
    counts_loss = False

    def missing(self) -> str | None:
        return None if shutil.which("strace") else "strace is not there (package strace)"

    def command(self, sink: Path) -> list[str]:
        return ["strace", "-c", "-f", "-q", "-p", str(os.getpid())]

    def is_ready(self, running: Running) -> bool:
        return f"TracerPid:\t{running.pid}\n" in Path("/proc/self/status").read_text()

    def counts(self, running: Running, load: Load) -> Counts:
        raise TracerFailed(f"{self.name}: tells no events apart")


# Each prints a line for every open.
OPENSNOOP = Peer("opensnoop", "libbpf-tools", "/usr/sbin/opensnoop")
BPFTRACE = Peer("bpftrace", "bpftrace", "bpftrace", "/usr/sbin/opensnoop.bt")
PERF_TRACE = Peer("perf trace", "linux-perf", "perf", "trace", "-a", "-e", "open,openat,openat2,creat", output_option="-o")
PEERS = (OPENSNOOP, BPFTRACE, PERF_TRACE)

# Counts every system call of every process in the kernel, and prints the counts when it ends. It has room for the processes of a fork storm.
SYSCALL_COUNTS = Peer(
    "bpftrace counts",
    "bpftrace",
    *("env", "BPFTRACE_MAP_KEYS_MAX=262144", "/usr/bin/bpftrace", "-e", "tracepoint:raw_syscalls:sys_enter { @[pid, args->id] = count(); }"),
)

# Prints a line for every program that is started, with its arguments, and for every open.
EXECS_AND_OPENS = Together(Peer("execsnoop", "libbpf-tools", "/usr/sbin/execsnoop"), OPENSNOOP)

STRACE = Strace()
