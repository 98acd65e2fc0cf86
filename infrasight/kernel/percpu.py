"""Reading a per-CPU array map through the bpf system call: one value for each possible CPU, summed."""

from __future__ import annotations

import ctypes
import os
import platform

import numpy as np
import numpy.typing as npt

from infrasight.errors import KernelError

_BPF = {"x86_64": 321, "aarch64": 280}
"""Number of the bpf system call (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""
_MAP_LOOKUP = 1
"""BPF_MAP_LOOKUP_ELEM, include/uapi/linux/bpf.h."""


class _Lookup(ctypes.Structure):
    _fields_ = (("map_fd", ctypes.c_uint32), ("key", ctypes.c_uint64), ("value", ctypes.c_uint64), ("flags", ctypes.c_uint64))


def _possible_cpus() -> int:
    with open("/sys/devices/system/cpu/possible") as file:
        return int(file.read().strip().replace("-", ",").split(",")[-1]) + 1


class PerCpuCounters:
    """A BPF_MAP_TYPE_PERCPU_ARRAY of u64. Owns `fd`."""

    def __init__(self, fd: int, length: int) -> None:
        self._fd, self._length = fd, length
        self._values = np.zeros(_possible_cpus(), np.uint64)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall

    def read(self) -> npt.NDArray[np.uint64]:
        """The sum over all CPUs of each element, shape (length,). KernelError when the kernel refuses."""
        return np.array([self._sum(index) for index in range(self._length)], np.uint64)

    def _sum(self, index: int) -> int:
        key = ctypes.c_uint32(index)
        request = _Lookup(self._fd, ctypes.addressof(key), self._values.ctypes.data, 0)
        if self._syscall(_BPF[platform.machine()], _MAP_LOOKUP, ctypes.byref(request), ctypes.sizeof(request)):
            raise KernelError(f"loss counters cannot be read: {os.strerror(ctypes.get_errno())}")
        return int(self._values.sum())

    def close(self) -> None:
        """Close the map. Legal twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
