"""Where runtimes have their sockets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from infrasight.runtimes.containerd import Containerd
from infrasight.runtimes.docker import Docker
from infrasight.runtimes.facts import Told


class Runtime(Protocol):
    """What all of them can be asked."""

    tells: frozenset[bytes]

    def containers(self) -> AsyncGenerator[Told | None, None]:
        """Those there are, None, and those that come."""

    async def answer(self) -> None:
        """See that it answers."""

    async def close(self) -> None:
        """Close the connection."""


LANGUAGES: dict[str, type[Containerd] | type[Docker]] = {"containerd": Containerd, "docker": Docker}
"""What can be spoken. Podman speaks docker."""


class Place:
    """A socket and what is spoken there, written `docker:/run/podman/podman.sock`."""

    def __init__(self, text: str) -> None:
        """ValueError for anything else."""
        self.language, _, path = text.partition(":")
        self.socket = Path(path)
        if self.language not in LANGUAGES or not self.socket.is_absolute():
            raise ValueError(f"{text!r} is no place of a runtime such as docker:/run/docker.sock or containerd:/run/containerd/containerd.sock")

    def __str__(self) -> str:
        return f"{self.language}:{self.socket}"

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def runtime(self, answer_within_s: float) -> Runtime:
        """The runtime there, not connected yet."""
        return LANGUAGES[self.language](self.socket, answer_within_s)


USUAL = tuple(
    map(
        Place,
        (
            "containerd:/run/containerd/containerd.sock",
            "containerd:/run/k3s/containerd/containerd.sock",
            "docker:/run/docker.sock",
            "docker:/run/podman/podman.sock",
        ),
    )
)
"""Where they are unless it is said."""
