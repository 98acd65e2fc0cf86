"""How long BPF programs run, by the kernel's own count, asked through the bpf system call.

The time that the kernel takes to look at the clock, twice a run, is partly in it. A program that another reaches by a tail call has no
count of its own: its time is the caller's.
"""

import ctypes
import errno
import os
import platform
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.tracers import TracerFailed

CALL = {"x86_64": 321, "aarch64": 280}  # number of the bpf system call
NEXT_PROGRAM, PROGRAM_BY_ID, INFO_BY_FD, ENABLE_STATS = 11, 13, 15, 32  # include/uapi/linux/bpf.h: enum bpf_cmd
INFO_BYTES = 232
TAG, NAME, RUN_NS, RUNS = slice(8, 16), slice(64, 80), slice(192, 200), slice(200, 208)  # of struct bpf_prog_info
WORDS = ctypes.c_uint32 * 32  # room for union bpf_attr
LIBC = ctypes.CDLL(None, use_errno=True)
SYMBOL = re.compile(r"\bbpf_prog_([0-9a-f]{16})_(\S+)")


@dataclass(frozen=True)
class Times:
    """How often and how long a program ran."""

    name: str
    runs: int = 0
    ns: int = 0

    def since(self, before: "Times") -> "Times":
        return Times(self.name, self.runs - before.runs, self.ns - before.ns)

    @property
    def ns_per_run(self) -> float:
        return self.ns / self.runs


@contextmanager
def counting() -> Iterator[None]:
    """The kernel counts, for as long as a descriptor is open: it stops by itself however we end. Raises TracerFailed."""
    try:
        switch = _bpf(ENABLE_STATS, 0)
    except OSError as e:
        raise TracerFailed(f"the kernel does not count: {e}") from e
    try:
        yield
    finally:
        os.close(switch)


def programs() -> dict[int, Times]:
    """Every program that is loaded now, by its id."""
    infos = list(_infos())  # first: reading the symbols is a load itself
    symbols = _symbols(Path("/proc/kallsyms").read_text())
    return {program: _times(info, symbols) for program, info in infos}


def merged(times: Iterable[Times]) -> list[Times]:
    """Programs of one name as one."""
    sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for one in times:
        sums[one.name][0] += one.runs
        sums[one.name][1] += one.ns
    return [Times(name, *both) for name, both in sums.items()]


def _infos() -> Iterator[tuple[int, bytes]]:
    program = 0
    while True:
        request = WORDS(program)
        try:
            _call(NEXT_PROGRAM, request)
        except OSError as e:
            if e.errno == errno.ENOENT:
                return
            raise
        program = request[1]
        try:
            fd = _bpf(PROGRAM_BY_ID, program)
        except OSError:
            continue  # unloaded just now
        try:
            info = ctypes.create_string_buffer(INFO_BYTES)
            address = ctypes.addressof(info)
            _bpf(INFO_BY_FD, fd, INFO_BYTES, address & 0xFFFFFFFF, address >> 32)
        finally:
            os.close(fd)
        yield program, info.raw


def _times(info: bytes, symbols: Mapping[str, set[str]]) -> Times:
    """The kernel cuts a program's name to 15 bytes; its symbol has the whole, where the program came with type information."""
    name = info[NAME].split(b"\0")[0].decode()
    whole = {symbol for symbol in symbols.get(info[TAG].hex(), ()) if symbol.startswith(name)}
    return Times(whole.pop() if len(whole) == 1 else name, int.from_bytes(info[RUNS], "little"), int.from_bytes(info[RUN_NS], "little"))


def _symbols(kallsyms: str) -> dict[str, set[str]]:
    """What the kernel calls the machine code of each program, by the program's tag."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for tag, name in SYMBOL.findall(kallsyms):
        found[tag].add(name)
    return found


def _bpf(command: int, *words: int) -> int:
    return _call(command, WORDS(*words))


def _call(command: int, attributes: ctypes.Array[ctypes.c_uint32]) -> int:
    """`attributes` is union bpf_attr, as 32-bit words."""
    number = CALL.get(platform.machine())
    if number is None:
        raise TracerFailed(f"the bpf system call's number on {platform.machine()} is not known")
    given = int(LIBC.syscall(number, command, attributes, ctypes.sizeof(attributes)))
    if given < 0:
        raise OSError(ctypes.get_errno(), f"bpf: {os.strerror(ctypes.get_errno())}")
    return given
