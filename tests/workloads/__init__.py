"""Tiny named programs that do something exactly known, for the real kernel to see.

Each prints one JSON line that says what it did, from its own knowledge: the independent source against which tests compare what was
traced. They are linked statically, so that the dynamic loader opens nothing in their name, and make their files with mknod(2), which is
no open either. What a program wants to say about every single call goes to its `--log` file, one JSON object a line: opening that log is
the one open, or write, beyond what was asked.
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
HEADER = SOURCES / "workload.h"
COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread", "-static")
NAMES = tuple(sorted(source.stem for source in SOURCES.glob("*.c")))


class WorkloadFailed(AssertionError):
    """A workload did not do what it was asked to, so its counts are worth nothing."""


@cache
def build(name: str) -> Path:
    """Compile `name`.c unless that very source was compiled before; safe when several processes do so at once."""
    source = SOURCES / f"{name}.c"
    identity = hashlib.sha256("\0".join([*COMPILE, HEADER.read_text(), source.read_text()]).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"infrasight-workloads-{os.getuid()}" / identity
    binary = folder / name  # its file name is the comm that the kernel reports
    if binary.exists():
        return binary
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as private:
        made = Path(private) / name
        subprocess.run([*COMPILE, f"-I{SOURCES}", "-o", made, source], check=True)
        made.rename(binary)
    return binary


def run(name: str, *arguments: object, timeout_s: float = 120) -> dict[str, Any]:
    """Run a workload to its end and return what it says it did.

    Raises WorkloadFailed when it refuses or fails, subprocess.TimeoutExpired when it takes longer than `timeout_s`.
    """
    done = subprocess.run([build(name), *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, check=False)
    if done.returncode:
        raise WorkloadFailed(f"{name} {' '.join(map(str, arguments))}: exit {done.returncode}: {done.stderr.strip()}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def read_log(path: Path) -> Sequence[dict[str, Any]]:
    """What a workload wrote to its `--log` file, in order."""
    return [json.loads(line) for line in path.read_text().splitlines()]
