"""The trees of cgroups as this process sees them: where they are mounted, and what is in them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MOUNTS, CONTROLLERS = Path("/proc/self/mounts"), Path("/proc/cgroups")
_ROOT = 1
"""Id of a hierarchy's own root (fs/kernfs/dir.c: kernfs_create_root): a mount of that shows all, one made in a cgroup namespace just a part."""
_SHIFT = 48
"""As in bpf/include/emit.h: hierarchies number their cgroups each for itself."""
_OCTAL = re.compile(rb"\\([0-7]{3})")
"""How proc(5) writes space, tab, newline and backslash in mounts."""


@dataclass(frozen=True)
class Hierarchy:
    """A tree of cgroups: where it is mounted, and its number, which is 0 for v2."""

    top: Path
    number: int = 0

    def id(self, inode: int) -> int:
        """What events have for the cgroup whose directory this is."""
        return self.number << _SHIFT | inode

    def find(self, path: bytes) -> int:
        """Id of the cgroup at a path; 0 when there is none."""
        inode = _inode(Path(os.fsdecode(os.fsencode(self.top) + path)))
        return self.id(inode) if inode else 0

    def cgroups(self) -> Iterator[tuple[int, bytes]]:
        """Id and path of each cgroup, those above before those in them; one that is gone meanwhile is left out."""
        yield self.id(_inode(self.top)), b"/"
        waiting = [(os.fsencode(self.top), b"")]
        while waiting:
            place, path = waiting.pop()
            with contextlib.suppress(OSError), os.scandir(place) as entries:
                inside = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
                waiting += [(entry.path, path + b"/" + entry.name) for entry in inside]
                yield from ((self.id(entry.inode()), path + b"/" + entry.name) for entry in inside)


def hierarchies(mounts: Path = MOUNTS, controllers: Path = CONTROLLERS) -> list[Hierarchy]:
    """Those that events tell the cgroup of, v2 first, then the pids controller's own, as far as they are mounted here. Of several mounts of one
    the first is taken that shows all of it, or else the first. OSError when it cannot be read what is mounted."""
    places: tuple[list[Path], list[Path]] = [], []
    for line in mounts.read_bytes().splitlines():
        fields = line.split(b" ")
        if len(fields) > 3 and (fields[2] == b"cgroup2" or (fields[2] == b"cgroup" and b"pids" in fields[3].split(b","))):
            places[fields[2] == b"cgroup"].append(Path(os.fsdecode(_OCTAL.sub(lambda octal: bytes([int(octal[1], 8)]), fields[1]))))
    numbers = 0, _number_of_pids(controllers)
    return [Hierarchy(_widest(found), number) for found, number in zip(places, numbers, strict=True) if found]


def _widest(places: list[Path]) -> Path:
    return next((place for place in places if _inode(place) == _ROOT), places[0])


def _inode(place: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return place.stat().st_ino
    return 0


def _number_of_pids(controllers: Path) -> int:
    """The number of the hierarchy that the pids controller is in (cgroups(7): name, hierarchy, and so on)."""
    with contextlib.suppress(OSError):
        for line in controllers.read_text().splitlines():
            if (fields := line.split())[0] == "pids":
                return int(fields[1])
    return 0
