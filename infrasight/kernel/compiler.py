"""C to eBPF: the only module that touches BCC, and what comes out of it kept on disk, since it is the same at every start.

BCC creates the maps of a module in the kernel while it compiles. They go with the process that compiles; what is kept is how they were made.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import stat
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infrasight.errors import KernelError
from infrasight.kernel.bpf import MapInfo, map_info
from infrasight.kernel.source import bpf_directory
from infrasight.schema.c import RING_NUMBERS

CACHE = "INFRASIGHT_CACHE_DIR"
"""Variable: where compiled modules are kept; unless given /var/cache/infrasight. Empty: nowhere."""
_KEPT = 8
"""Modules kept; the longest unused go first. One takes about 1 MB."""
_INSN = 8
_LOAD_MAP, _PSEUDO_MAP_FD = 0x18, 1
"""An instruction that loads the address of a map: BPF_LD | BPF_IMM | BPF_DW with this for its source register."""


@dataclass(frozen=True)
class Module:
    """Compiled: how to make each map, and the instructions of each program, in which a map is meant by its place in `maps`."""

    maps: dict[str, MapInfo]
    programs: dict[str, bytes]

    def to_json(self) -> str:
        """As it is kept."""
        programs = {name: b64encode(code).decode() for name, code in self.programs.items()}
        return json.dumps({"maps": {name: list(info) for name, info in self.maps.items()}, "programs": programs})

    @classmethod
    def from_json(cls, text: str) -> Module:
        """ValueError, KeyError or TypeError when it is not that."""
        found = json.loads(text)
        maps = {str(name): MapInfo(*map(int, info)) for name, info in found["maps"].items()}
        return cls(maps, {str(name): b64decode(code, validate=True) for name, code in found["programs"].items()})


def compiled(text: str, flags: list[str], programs: list[str]) -> Module:
    """The module of a C text, from disk when it was compiled before. KernelError when it does not compile."""
    kept = _place(text, flags)
    if kept and (module := _kept(kept)):
        return module
    module = compile_module(text, flags, programs)
    if kept:
        _keep(kept, module)
    return module


def compile_module(text: str, flags: list[str], programs: list[str]) -> Module:
    """The same, compiled now."""
    os.environ["BCC_KERNEL_SOURCE"] = str(bpf_directory() / "stub")
    try:
        from bcc import BPF
    except ImportError as error:
        raise KernelError("BCC for Python is missing: apt-get install python3-bpfcc (not the pip package called bcc)") from error
    messages: list[str] = []
    try:
        with captured_stderr() as messages:
            bpf = BPF(text=text, cflags=flags)
    except Exception as error:  # BCC raises nothing narrower
        detail = next((line for line in messages if "error" in line.lower()), str(error))
        raise KernelError(f"the kernel side does not compile: {detail}") from error
    return _module(bpf, programs)


def _module(bpf: Any, programs: list[str]) -> Module:
    from bcc import lib

    lib.bpf_table_name.restype, lib.bpf_table_name.argtypes = ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_size_t)
    fds = {}
    for place in range(lib.bpf_num_tables(bpf.module)):
        fds[int(lib.bpf_table_fd_id(bpf.module, place))] = lib.bpf_table_name(bpf.module, place).decode()
    maps = {name: map_info(fd) for fd, name in fds.items()}
    places = {fd: place for place, fd in enumerate(fds)}
    places |= {RING_NUMBERS[name]: places[fd] for fd, name in fds.items() if name in RING_NUMBERS}
    return Module(maps, {name: _by_place(bpf.dump_func(name.encode()), places) for name in programs})


def _by_place(code: bytes, places: dict[int, int]) -> bytes:
    """Instructions in which each map's descriptor, or number, has become its place."""
    return _with_maps(code, places)


def with_descriptors(code: bytes, fds: list[int]) -> bytes:
    """The other way round: instructions that can be loaded, with the descriptors of the maps there are now."""
    return _with_maps(code, dict(enumerate(fds)))


def _with_maps(code: bytes, numbers: dict[int, int]) -> bytes:
    changed = bytearray(code)
    for at in range(0, len(code), _INSN):
        if code[at] == _LOAD_MAP and code[at + 1] >> 4 == _PSEUDO_MAP_FD:
            number = int.from_bytes(code[at + 4 : at + 8], "little")
            changed[at + 4 : at + 8] = numbers[number].to_bytes(4, "little")
    return bytes(changed)


def _place(text: str, flags: list[str]) -> Path | None:
    """Where the module of a text is kept; None when there is no place that only we can write to."""
    directory = os.environ.get(CACHE, "/var/cache/infrasight")
    if not directory:
        return None
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        found = os.stat(directory)
    except OSError:
        return None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return None
    digest = hashlib.sha256("\0".join([_bcc_version(), *flags, text]).encode()).hexdigest()
    return Path(directory) / f"bpf-{digest[:32]}.json"


def _bcc_version() -> str:
    """Of the compiler, asked without loading it."""
    from importlib.util import find_spec

    spec = find_spec("bcc")
    version = Path(spec.origin).parent / "version.py" if spec and spec.origin else None
    return version.read_text() if version and version.is_file() else ""


def _kept(path: Path) -> Module | None:
    """What is kept there; None when there is nothing, or something else."""
    try:
        module = Module.from_json(path.read_text())
        os.utime(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return module


def _keep(path: Path, module: Module) -> None:
    """A disk that is full, or a directory that is gone, costs no more than the time next time."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        temporary.write_text(module.to_json())
        temporary.replace(path)
        for old in sorted(path.parent.glob("bpf-*.json"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def captured_stderr() -> Iterator[list[str]]:
    """What clang writes to file descriptor 2, as lines, once the block has ended."""
    lines: list[str] = []
    kept, memory = os.dup(2), os.memfd_create("stderr")
    os.dup2(memory, 2)
    try:
        yield lines
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.lseek(memory, 0, os.SEEK_SET)
        with os.fdopen(memory, "r", errors="replace") as file:
            lines.extend(line.rstrip() for line in file)
