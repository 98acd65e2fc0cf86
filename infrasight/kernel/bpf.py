"""The bpf system call: maps read and written, programs attached, by file descriptor. BCC is for compiling; it is not in the node's process."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import platform
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infrasight.errors import KernelError

_NUMBER = {"x86_64": 321, "aarch64": 280}
"""Number of the bpf system call (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""
_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _NEXT_KEY, _PROG_LOAD, _INFO, _ATTACH_RAW, _LOOKUP_BATCH, _TAKE_BATCH = 0, 1, 2, 3, 4, 5, 15, 17, 24, 25
"""Commands, enum bpf_cmd of include/uapi/linux/bpf.h."""
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
"""Number of the perf_event_open system call."""
_SOFTWARE, _DISABLED, _EXCLUDE_IDLE, _CLOEXEC = 1, 1 << 0, 1 << 7, 8
_ENABLE, _SET_BPF = 0x2400, 0x40042408
"""Of include/uapi/linux/perf_event.h: PERF_TYPE_SOFTWARE, bits of struct perf_event_attr, a flag, and ioctls."""
_libc = ctypes.CDLL(None, use_errno=True)


class _Element(ctypes.Structure):
    _fields_ = (("map_fd", ctypes.c_uint32), ("key", ctypes.c_uint64), ("value", ctypes.c_uint64), ("flags", ctypes.c_uint64))


class MapInfo(NamedTuple):
    """How a map is made: BPF_MAP_TYPE_*, sizes in bytes, BPF_F_*."""

    type: int
    key_bytes: int
    value_bytes: int
    entries: int
    flags: int


class _MapCreate(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint32) for name in ("type", "key_size", "value_size", "max_entries", "map_flags", "inner", "numa")),
        ("name", ctypes.c_char * 16),
        ("rest", ctypes.c_uint32 * 5),
    )


class _ProgramLoad(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log", ctypes.c_uint64),
        ("kernel_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("name", ctypes.c_char * 16),
    )


class _Info(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_uint32), ("length", ctypes.c_uint32), ("info", ctypes.c_uint64))


class _RawTracepoint(ctypes.Structure):
    _fields_ = (("name", ctypes.c_uint64), ("program_fd", ctypes.c_uint32), ("padding", ctypes.c_uint32))


class _Batch(ctypes.Structure):
    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


@functools.cache
def _machine() -> str:
    return platform.machine()


def _bpf(command: int, request: ctypes.Structure) -> int:
    """What the call returns; KernelError with the errno as its cause when it fails."""
    result = int(_libc.syscall(_NUMBER[_machine()], command, ctypes.byref(request), ctypes.sizeof(request)))
    if result < 0:
        number = ctypes.get_errno()
        raise KernelError(os.strerror(number)) from OSError(number, os.strerror(number))
    return result


def _is(error: KernelError, number: int) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == number


def _some(command: int, request: _Batch) -> bool:
    """Have a part of a map copied; whether there is more."""
    try:
        _bpf(command, request)
    except KernelError as error:
        if not _is(error, errno.ENOENT):
            raise
        return False
    return True


def possible_cpus() -> int:
    """How many processors the machine may ever have, which is how many values an element of a per-CPU map has."""
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().replace("-", ",").split(",")[-1]) + 1


def map_info(fd: int) -> MapInfo:
    """How a map was made."""
    info = (ctypes.c_uint32 * 20)()  # struct bpf_map_info: type, id, key size, value size, entries, flags and so on
    _bpf(_INFO, _Info(fd, ctypes.sizeof(info), ctypes.addressof(info)))
    return MapInfo(info[0], info[2], info[3], info[4], info[5])


def create_map(info: MapInfo, name: str) -> int:
    """The descriptor of a new map. KernelError when the kernel has no memory for it, or does not know its type."""
    try:
        return _bpf(_MAP_CREATE, _MapCreate(*info, 0, 0, name.encode()[:15]))
    except KernelError as error:
        raise KernelError(f"map {name}: {error}") from error


TRACEPOINT, PERF_EVENT = 17, 7
"""Types of programs: BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_PERF_EVENT."""
_LOG_BYTES = 16 << 20


def load_program(kind: int, code: bytes, name: str) -> int:
    """The descriptor of a program that the kernel has found to be sound. KernelError with what it says when it has not; its `log` is all it says."""
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    request = _ProgramLoad(kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence), name=name.encode()[:15])
    try:
        return _bpf(_PROG_LOAD, request)
    except KernelError as error:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        request.log_level, request.log_size, request.log = 1, _LOG_BYTES, ctypes.addressof(log)
        with contextlib.suppress(KernelError):
            os.close(_bpf(_PROG_LOAD, request))
        raise ProgramRefused(str(error), log.value.decode(errors="replace")) from error


class ProgramRefused(KernelError):
    """The kernel does not take a program; `log` is what its verifier says."""

    def __init__(self, reason: str, log: str) -> None:
        lines = [line for line in log.splitlines() if line.strip() and not line.startswith(("processed ", "verification time", "stack depth"))]
        super().__init__(lines[-1].strip() if lines else reason)
        self.log = log


class Map:
    """A map of fixed key and value sizes in bytes. Owns `fd`."""

    def __init__(self, fd: int, key_bytes: int, value_bytes: int) -> None:
        self.fd, self.key_bytes, self.value_bytes = fd, key_bytes, value_bytes

    def _element(self, command: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | bytes | None, flags: int = 0) -> None:
        held_key = ctypes.create_string_buffer(key, self.key_bytes) if key is not None else None
        held = ctypes.create_string_buffer(value, self.value_bytes) if isinstance(value, bytes) else value
        _bpf(command, _Element(self.fd, (held_key and ctypes.addressof(held_key)) or 0, (held and ctypes.addressof(held)) or 0, flags))

    def lookup(self, key: bytes) -> bytes | None:
        """The value, None when there is none."""
        value = ctypes.create_string_buffer(self.value_bytes)
        try:
            self._element(_LOOKUP, key, value)
        except KernelError as error:
            if _is(error, errno.ENOENT):
                return None
            raise
        return value.raw

    def update(self, key: bytes, value: bytes) -> None:
        """Put a value in. KernelError when the map is full."""
        self._element(_UPDATE, key, value)

    def delete(self, key: bytes) -> None:
        """Take a key out; one that is not there is no mistake."""
        try:
            self._element(_DELETE, key, None)
        except KernelError as error:
            if not _is(error, errno.ENOENT):
                raise

    def all_keys(self) -> list[bytes]:
        """All keys of a hash map that nobody else writes to."""
        found: list[bytes] = []
        key: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self.key_bytes)
            try:
                self._element(_NEXT_KEY, key, following)
            except KernelError as error:
                if _is(error, errno.ENOENT):
                    return found
                raise
            key = following.raw
            found.append(key)

    def batches(self, most: int) -> Iterator[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
        """Keys (n, key_bytes) and values (n, value_bytes) of the whole map, up to `most` at a time. The arrays are used again for the next ones."""
        keys, values, position, request = self._room(most)
        more = True
        while more:
            request.count = most
            more = _some(_LOOKUP_BATCH, request)
            yield keys[: request.count], values[: request.count]
            request.in_batch = position.ctypes.data

    def take(self, most: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], bool]:
        """Up to `most` keys and values, likewise, of a hash map, which are not in it any more; and whether there may be more."""
        keys, values, _position, request = self._room(most)
        more = _some(_TAKE_BATCH, request)
        return keys[: request.count], values[: request.count], more

    def _room(self, most: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint8], _Batch]:
        """Room for keys, values and how far one has come, and a request that fills it, to be kept together."""
        keys, values = np.empty((most, self.key_bytes), np.uint8), np.empty((most, self.value_bytes), np.uint8)
        position = np.zeros(max(self.key_bytes, 8), np.uint8)
        request = _Batch(0, position.ctypes.data, keys.ctypes.data, values.ctypes.data, most, self.fd)
        return keys, values, position, request

    def close(self) -> None:
        """Legal twice."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def attach_tick(program_fd: int) -> list[int]:
    """Run a program once a second on each processor that is not idle; the descriptors that keep it so. KernelError when the kernel refuses."""
    fds: list[int] = []
    try:
        for cpu in sorted(_online_cpus()):
            fds.append(_clock_event(cpu))
            for request, argument in ((_SET_BPF, program_fd), (_ENABLE, 0)):
                if _libc.ioctl(fds[-1], ctypes.c_ulong(request), ctypes.c_ulong(argument)) < 0:
                    raise KernelError(f"tick: not attached: {os.strerror(ctypes.get_errno())}")
    except KernelError:
        for fd in fds:
            os.close(fd)
        raise
    return fds


def _clock_event(cpu: int) -> int:
    attributes = (ctypes.c_uint64 * 16)()
    attributes[0] = _SOFTWARE | ctypes.sizeof(attributes) << 32  # type, size
    attributes[2] = 1_000_000_000  # sample_period, ns; config (1) is PERF_COUNT_SW_CPU_CLOCK, 0
    attributes[5] = _EXCLUDE_IDLE | _DISABLED
    fd = int(_libc.syscall(_PERF_EVENT_OPEN[_machine()], ctypes.byref(attributes), -1, cpu, -1, _CLOEXEC))
    if fd < 0:
        raise KernelError(f"tick: not attached: {os.strerror(ctypes.get_errno())}")
    return fd


def _online_cpus() -> set[int]:
    with open("/sys/devices/system/cpu/online") as file:
        spans = [part.split("-") for part in file.read().strip().split(",")]
    return {cpu for span in spans for cpu in range(int(span[0]), int(span[-1]) + 1)}


def attach_raw_tracepoint(program_fd: int, event: str) -> int:
    """The file descriptor that keeps a program attached. KernelError when there is no such tracepoint."""
    name = ctypes.create_string_buffer(event.encode())
    try:
        return _bpf(_ATTACH_RAW, _RawTracepoint(ctypes.addressof(name), program_fd, 0))
    except KernelError as error:
        raise KernelError(f"{event}: not attached: {error}") from error
