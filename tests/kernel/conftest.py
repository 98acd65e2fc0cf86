"""One tracing for all tests here that look at records: loading takes most of a second."""

import ctypes
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infrasight.kernel.source import LIMITS
from tests.kernel.calls import cgroup_mount
from tests.kernel.tap import Tap, tapping

PageOnDisk = Callable[[bytes], int]
InTheLoader = Callable[[str], None]
Limits = Callable[..., None]


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
def in_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InTheLoader:
    """Has Python code run first in every process that is started from now on, as the loader is."""

    def have(code: str) -> None:
        (tmp_path / "sitecustomize.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))

    return have


@pytest.fixture
def limits(in_the_loader: InTheLoader) -> Limits:
    """Has the loader make maps of these sizes: `limits(CALL_PLACES=4)`."""

    def have(**sizes: int) -> None:
        assert sizes.keys() <= LIMITS.keys()
        in_the_loader(f"import infrasight.kernel.source as s\ns.LIMITS.update({sizes!r})\n")

    return have


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


@pytest.fixture(scope="package")
def int80(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[int, int]]:
    """Makes a 32-bit system call in a program of its own, see int80.c: its process id and what the call returned. Needs "gcc" and "compat"."""
    program = tmp_path_factory.mktemp("int80") / "int80"
    subprocess.run(["gcc", "-O1", "-o", program, Path(__file__).with_name("int80.c")], check=True)

    def make(*words: object) -> tuple[int, int]:
        child = subprocess.Popen([program, *map(str, words)], stdout=subprocess.PIPE)
        return child.pid, int(child.communicate()[0])

    return make
