"""Counters that each processor keeps by itself."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infrasight.errors import KernelError
from infrasight.kernel.bpf import Map, possible_cpus


class PerCpuCounters:
    """A BPF_MAP_TYPE_PERCPU_ARRAY of u64. Owns `fd`."""

    def __init__(self, fd: int, length: int) -> None:
        self._map, self._length = Map(fd, 4, 8 * possible_cpus()), length

    def read(self) -> npt.NDArray[np.uint64]:
        """The sum over all CPUs of each element, shape (length,). KernelError when the kernel refuses."""
        try:
            values = self._values()
        except KernelError as error:
            raise KernelError(f"loss counters cannot be read: {error}") from error
        sums: npt.NDArray[np.uint64] = values.view(np.uint64).reshape(self._length, -1).sum(axis=1, dtype=np.uint64)
        return sums

    def _values(self) -> npt.NDArray[np.uint8]:
        try:
            return np.concatenate([values.copy() for _, values in self._map.batches(self._length)])
        except KernelError:  # before Linux 5.13 one by one
            return np.frombuffer(b"".join(self._map.lookup(index.to_bytes(4, "little")) or b"" for index in range(self._length)), np.uint8)

    def close(self) -> None:
        """Close the map. Legal twice."""
        self._map.close()
