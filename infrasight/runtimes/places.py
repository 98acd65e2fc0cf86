"""Where runtimes have their sockets."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from infrasight.runtimes.facts import Told
from infrasight.runtimes.limits import SYSTEM, USERS


class Runtime(Protocol):
    """What all of them can be asked."""

    tells: frozenset[bytes]

    def containers(self) -> AsyncGenerator[Told | None, None]:
        """Those there are, None, and those that come."""

    def seek(self, id: bytes) -> None:
        """The kernel told of a container of its that is not known yet."""

    async def answer(self) -> None:
        """See that it answers."""

    async def close(self) -> None:
        """Close the connection."""


LANGUAGES = {"containerd": "Containerd", "cri": "Cri", "docker": "Docker"}
"""What can be spoken, by the module here, and the class in it. Podman speaks docker, cri-o cri."""
USERS_MAX = 16
"""Sockets of users' own that are taken notice of."""
_RUN_USER = Path("/run/user")


class Socket:
    """A socket that is there, held fast: whatever is put at its path meanwhile, it is this one that is connected to. A context manager."""

    def __init__(self, path: Path, owner: int | None = None) -> None:
        """OSError when there is none, or it is not this user's, whose path it is then that must not lead elsewhere."""
        self._fd = os.open(path, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if owner is not None else 0))
        found = os.fstat(self._fd)
        if not stat.S_ISSOCK(found.st_mode) or owner not in (None, found.st_uid):
            os.close(self._fd)
            raise FileNotFoundError(f"{path} is no socket of theirs")
        self.user = b"" if found.st_uid in (0, os.geteuid()) else str(found.st_uid).encode()
        """Whose it is: the number of a user who is not to be believed, or empty."""

    @property
    def door(self) -> str:
        """Where to connect to it."""
        return f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


class Place:
    """A socket and what is spoken there, written `docker:/run/podman/podman.sock`."""

    def __init__(self, text: str, owner: int | None = None) -> None:
        """`owner` is the user whose socket it has to be, where that is known. ValueError for anything that is no place."""
        self.language, _, path = text.partition(":")
        self.socket, self.owner = Path(path), owner
        if self.language not in LANGUAGES or not self.socket.is_absolute():
            raise ValueError(f"{text!r} is no place of a runtime such as docker:/run/docker.sock or containerd:/run/containerd/containerd.sock")

    def __str__(self) -> str:
        return f"{self.language}:{self.socket}"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def hold(self) -> Socket | None:
        """The socket there; None when there is none."""
        try:
            return Socket(self.socket, self.owner)
        except (OSError, ValueError):
            return None

    def runtime(self, answer_within_s: float, node: str = "", held: Socket | None = None) -> Runtime:
        """The runtime there, not connected yet; `node` is what Kubernetes calls this machine, `held` the socket where that is held."""
        # What is not spoken here is not loaded either.
        speaks = getattr(import_module(f"infrasight.runtimes.{self.language}"), LANGUAGES[self.language])
        door, limits = (held.door, USERS if held.user else SYSTEM) if held else ("", SYSTEM)
        return cast(Callable[..., Runtime], speaks)(self.socket, answer_within_s, node=node, door=door, limits=limits)


USUAL = tuple(
    map(
        Place,
        (
            "containerd:/run/containerd/containerd.sock",
            "containerd:/run/k3s/containerd/containerd.sock",
            "cri:/run/crio/crio.sock",
            "docker:/run/docker.sock",
            "docker:/run/podman/podman.sock",
        ),
    )
)
"""Where they are unless it is said."""


def of_users(run_user: Path = _RUN_USER) -> list[Place]:
    """The sockets that users have for runtimes of their own, those of the lowest numbers first."""
    found: list[Place] = []
    with contextlib.suppress(OSError):
        users = sorted(int(entry.name) for entry in os.scandir(run_user) if entry.name.isdecimal() and entry.name.isascii())
        for user in filter(None, users):
            found += [place for place in _places(run_user / str(user), user) if _is_there(place)]
            if len(found) >= USERS_MAX:
                break
    return found[:USERS_MAX]


def _places(theirs: Path, user: int) -> Iterator[Place]:
    yield Place(f"docker:{theirs}/podman/podman.sock", user)
    yield Place(f"docker:{theirs}/docker.sock", user)
    # containerd's is in a mount namespace of its own, of which rootlesskit notes a process (containerd-rootless.sh).
    with contextlib.suppress(OSError, ValueError):
        pid = int(_beginning(theirs / "containerd-rootless/child_pid"))
        yield Place(f"containerd:/proc/{pid}/root/run/containerd/containerd.sock", user)


def _beginning(path: Path) -> bytes:
    """What a file of a user's begins with, which may be a pipe that nobody writes to."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        return os.read(fd, 20)
    finally:
        os.close(fd)


def _is_there(place: Place) -> bool:
    held = place.hold()
    if held is not None:
        held.__exit__()
    return held is not None
