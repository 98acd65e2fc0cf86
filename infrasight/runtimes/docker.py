"""Docker by its HTTP API, which podman speaks too: every container, what it is, told as soon as it is made."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from infrasight.errors import CallFailed, Disconnected
from infrasight.runtimes.facts import Facts, Key, Remembered, Told, facts_of
from infrasight.runtimes.http import Answer, Http
from infrasight.runtimes.limits import SYSTEM, Limits
from infrasight.runtimes.loose import inside, parsed, several, text, texts, time_ns

EVENT_BYTES_MAX = 1 << 20
"""Of one event."""
_WANTED = {"type": ["container"], "event": ["create", "rename", "update", "destroy", "remove"]}
"""Events; a container that is no more is destroyed by docker and removed by podman."""


class Docker:
    """One docker or podman, behind a socket."""

    def __init__(self, socket: Path, answer_within_s: float = 5.0, node: str = "", door: str = "", limits: Limits = SYSTEM) -> None:
        """`door` is the path to connect to, where `socket` is just what it is called; `node` makes no difference."""
        self.socket, self._limits, self._answer_within_s = socket, limits, answer_within_s
        self.tells: frozenset[bytes] = frozenset()
        """Of whose containers it tells, as paths of cgroups name the runtime; known once it has answered."""
        self._http = Http.local(socket, door, answer_within_s, limits.answer_bytes)
        self._digests = Remembered[bytes]()

    async def containers(self) -> AsyncGenerator[Told | None, None]:
        """The containers that there are; then None, once all of those have been told; then those that are made, changed and removed, without end.
        To be left with `aclosing`.

        Disconnected when it is gone, hangs, or is nothing of the kind; CallFailed when it refuses.
        """
        await self.answer()
        # Asked for first: what is made while the others are told would be in neither.
        async with self._http.ask("/events", {"filters": json.dumps(_WANTED)}, within_s=None) as events:
            self._check(events)
            for each in several(await self._get("/containers/json", all="1")):
                if (news := await self._about(text(each, "Id"))) is not None:
                    yield news
                await self._limits.pause()
            yield None
            async for line in events.lines(min(EVENT_BYTES_MAX, self._limits.answer_bytes)):
                event = parsed(line)
                id = text(inside(event, "Actor"), "ID") or text(event, "id")
                if text(event, "Action") in ("destroy", "remove"):
                    yield _key(id), None
                elif (news := await self._about(id)) is not None:
                    yield news
                await self._limits.pause()
        raise Disconnected(f"{self.socket} tells no more")

    def seek(self, id: bytes) -> None:
        """Nothing needs to be done: what is made is told."""

    async def answer(self) -> None:
        """Have it answer something. Errors as of `containers`; a connection on which there are no news can have one that hangs at its end."""
        async with self._http.ask("/version", {}, within_s=self._answer_within_s) as answer:
            self._check(answer)
            self.tells = frozenset({b"podman" if "Libpod" in answer.headers.get("Server", "") else b"docker"})

    async def close(self) -> None:
        """Close the connections. Legal twice."""
        await self._http.close()

    async def _about(self, id: str) -> Told | None:
        try:
            told = await self._get(f"/containers/{_plain(id)}/json")
        except CallFailed:  # it is gone already
            return None
        return _key(id), await self._facts(told)

    async def _facts(self, told: Any) -> Facts:
        config, image = inside(told, "Config"), text(told, "Image")
        labels = inside(config, "Labels")
        return facts_of(
            text(told, "Name").removeprefix("/"),
            texts(labels),
            image=text(config, "Image"),
            image_digest=await self._digests.of(image, lambda: self._digest(image)) if image else b"",
            created_ns=time_ns(text(told, "Created")),
            started_ns=time_ns(text(inside(told, "State"), "StartedAt")),
            privileged=inside(told, "HostConfig").get("Privileged") is True,
        )

    async def _digest(self, image: str) -> bytes:
        """That of the manifest in a registry; empty for an image that was made here and is in none."""
        try:
            told = await self._get(f"/images/{_plain(image)}/json")
        except CallFailed:
            return b""
        first = next(iter(several(told.get("RepoDigests") if isinstance(told, dict) else None)), "")
        return str(first).partition("@")[2].encode(errors="replace")

    async def _get(self, path: str, **params: str) -> Any:
        async with self._http.ask(path, params, within_s=self._answer_within_s) as answer:
            self._check(answer)
            return await answer.json()

    def _check(self, answer: Answer) -> None:
        if answer.status != 200:
            raise CallFailed(f"{self.socket}: {answer.status} for {answer.path}")


def _plain(id: str) -> str:
    """An id as a part of a path. ValueError for what is none."""
    if not id.replace(":", "").isalnum():
        raise ValueError(f"{id[:80]!r} is no id")
    return id


def _key(id: str) -> Key:
    return Key(id.encode(errors="replace"))
