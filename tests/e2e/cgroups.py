"""Cgroups made by hand, and what runtimes leave behind of theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infrasight.node.containers.hierarchy import hierarchies


def remove_empty(path: str) -> None:
    """This cgroup and those above it, in every hierarchy, as far as nobody uses them."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        mount, kind = line.split()[1:3]
        names = path.strip("/").split("/")
        with suppress(OSError):
            for depth in range(len(names), 0, -1) if kind in ("cgroup", "cgroup2") else ():
                Path(mount, *names[:depth]).rmdir()


@contextmanager
def cgroup(path: str) -> Iterator[Path]:
    """A new one of the v2 hierarchy."""
    top = hierarchies()[0].top
    place = top / path.lstrip("/")
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        place.rmdir()
        remove_empty(str(place.parent.relative_to(top)))
