"""One tracing for all tests here that look at records: loading takes most of a second."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.calls import cgroup_mount
from tests.kernel.tap import Tap, tapping

PageOnDisk = Callable[[bytes], int]


@pytest.fixture(scope="package")
def tap() -> Iterator[Tap]:
    with tapping() as tap:
        yield tap


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """A new cgroup of the v2 hierarchy, removed afterwards: it has to be empty by then."""
    path = cgroup_mount() / f"infrasight-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def page_on_disk(tmp_path: Path) -> PageOnDisk:
    """Makes a page with this content that is mapped and was never touched; gives its address. eBPF cannot read such a page, a system call can."""
    maps: list[mmap.mmap] = []

    def make(content: bytes) -> int:
        path = tmp_path / f"page{len(maps)}"
        path.write_bytes(content.ljust(mmap.PAGESIZE, b"\0"))
        with path.open("r+b") as file:
            maps.append(mmap.mmap(file.fileno(), mmap.PAGESIZE))
        return ctypes.addressof(ctypes.c_char.from_buffer(maps[-1]))

    return make
