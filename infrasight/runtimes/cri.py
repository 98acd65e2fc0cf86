"""The Container Runtime Interface, version 1, which Kubernetes has its pods run by: cri-o's, for there is no other API to ask.

Where cri-o has been told to send events of containers (`enable_pod_events`), they are listened to. Else what the kernel tells of is asked about as it
comes, and it is looked now and then at all that there are. So it is with containerd too, whose version 1.7 gives each event to only one of those who
listen, which has to be the kubelet.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, nullcontext, suppress
from pathlib import Path
from typing import Any

from infrasight.errors import CallFailed
from infrasight.runtimes.facts import Key, Remembered, Told, Unknown, facts_of
from infrasight.runtimes.limits import SYSTEM, Limits
from infrasight.runtimes.loose import inside, parsed, text
from infrasight.runtimes.pods import NO_POD, SANDBOX_NAME, Pod, kept, pod_of
from infrasight.runtimes.spec import understood
from infrasight.wire.cri import (
    Asked,
    AskedImage,
    Entry,
    Event,
    GotContainer,
    GotImage,
    GotPod,
    ImageSpec,
    Listed,
    Nothing,
    PodMetadata,
    PodStatus,
    Version,
    What,
)
from infrasight.wire.local import LocalCall, LocalChannel, M

LOOK_EVERY_S = 10.0
"""How often it is looked at all that there are, where there are no events."""
SOUGHT_MAX = 1024
"""Containers that are to be asked about at most; the others are found at the next look."""
AGAIN_S, SOON, TRIES = 0.01, 16, 23
"""After what time one is asked about again that the runtime does not know yet: a pod's cgroup is there a tenth of a second before the pod is. So many
times that soon, then after twice that and so on; and how often at most."""
_ONE_LISTENS = b"containerd"


class Cri:
    """One runtime that speaks it, behind a socket."""

    def __init__(self, socket: Path, answer_within_s: float = 5.0, node: str = "", door: str = "", limits: Limits = SYSTEM) -> None:
        """`node` is what Kubernetes calls this machine; `door` is the path to connect to, where `socket` is just what it is called."""
        self.socket, self._node, self._limits = socket, node, limits
        self.tells: frozenset[bytes] = frozenset()
        """Of whose containers it tells, as paths of cgroups name the runtime; known once it has answered."""
        self._channel = LocalChannel(socket, "container runtime", answer_within_s, answer_bytes=limits.answer_bytes, fields=limits.fields, door=door)
        self._digests, self._pods = Remembered[bytes](), Remembered[Pod]()
        self._known: set[str] = set()
        self._sought: list[tuple[float, int, str]] = []
        """When to ask, how often that was done already, and about what; the next first."""
        self._told_by_events = False
        self._more_sought = asyncio.Event()

    async def containers(self) -> AsyncGenerator[Told | None, None]:
        """The containers that there are, those that stand for pods too; then None, once all of them have been told; then those that are made and
        removed, without end. To be left with `aclosing`.

        Disconnected when it is gone, hangs, or is nothing of the kind; CallFailed when it refuses.
        """
        await self.answer()
        # Asked for first: what is made while the others are told would be in neither.
        async with nullcontext() if _ONE_LISTENS in self.tells else self._events() as events:
            async with aclosing(self._look()) as there:
                async for told in there:
                    yield told
            yield None
            self._told_by_events = events is not None
            while events is not None and (event := await _next(events)) is not None:
                if (news := await self._about(event)) is not None:
                    yield news
                await self._limits.pause()
            self._told_by_events = False
        while True:
            async with aclosing(self._until_the_next_look()) as found:
                async for told in found:
                    yield told
            async with aclosing(self._look()) as there:
                async for told in there:
                    yield told

    def seek(self, id: bytes) -> None:
        """The kernel told of a container that is not known: ask about it, where no event will tell."""
        if not self._told_by_events and len(self._sought) < SOUGHT_MAX:
            self._seek_at(_now_s(), 0, id.decode(errors="replace"))

    async def answer(self) -> None:
        """Have it answer something. Errors as of `containers`; a connection on which there are no news can have one that hangs at its end."""
        name = (await self._ask("Version", Nothing(), Version)).runtime_name.encode()
        self.tells = frozenset({name, b""}) if name == b"containerd" else frozenset({name})

    async def close(self) -> None:
        """Close the connection. Legal twice."""
        self._channel.close()

    def _seek_at(self, when_s: float, tries: int, id: str) -> None:
        heapq.heappush(self._sought, (when_s, tries, id))
        self._more_sought.set()

    async def _until_the_next_look(self) -> AsyncGenerator[Told, None]:
        """What is asked for meanwhile, in the order of time."""
        end_s = _now_s() + LOOK_EVERY_S
        while (now_s := _now_s()) < end_s:
            next_s = min(end_s, self._sought[0][0]) if self._sought else end_s
            if next_s > now_s:
                self._more_sought.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(next_s):
                        await self._more_sought.wait()
                continue
            _, tries, id = heapq.heappop(self._sought)
            await self._limits.pause()
            told = None if id in self._known else await self._told(id)
            if told is not None:
                yield told
            elif id not in self._known and tries < TRIES:
                self._seek_at(now_s + AGAIN_S * 2 ** max(0, tries - SOON), tries + 1, id)
                if not tries:
                    yield _key(id), Unknown.YET

    async def _look(self) -> AsyncGenerator[Told, None]:
        """At all that there are: what is not there any more, and what was not known."""
        pods = await self._ids("ListPodSandbox")
        there = pods | await self._ids("ListContainers")
        for id in self._known - there:
            yield self._ended(id)
        for id in there - self._known:
            told = await (self._told_pod(id) if id in pods else self._told_container(id))
            if told is not None:
                yield told
            await self._limits.pause()

    async def _ids(self, method: str) -> set[str]:
        return {each.id for each in (await self._ask(method, Nothing(), Listed)).those}

    async def _about(self, event: Event) -> Told | None:
        """What an event tells of a container, if anything."""
        if event.what is What.DELETED:
            return self._ended(event.id)
        return await self._told(event.id) if event.id not in self._known else None

    def _ended(self, id: str) -> Told:
        self._known.discard(id)
        self._pods.forget(id)
        return _key(id), None

    async def _told(self, id: str) -> Told | None:
        """A container, or a pod; None when there is no such thing, or not yet."""
        return await self._told_container(id) or await self._told_pod(id)

    async def _told_container(self, id: str) -> Told | None:
        try:
            got = await self._ask("ContainerStatus", Asked(id=id, verbose=True), GotContainer)
        except CallFailed:
            return None
        status, told = got.status, _info(got.info)
        if status is None or status.id != id:  # the beginning of an id is taken for one
            return None
        spec, labels, pod_id = understood(inside(told, "runtimeSpec")), _labels(status.labels), text(told, "sandboxID")
        image = status.image_ref
        facts = facts_of(
            status.metadata.name if status.metadata else id,
            labels,
            image=status.image.image if status.image else "",
            image_digest=await self._digests.of(image, lambda: self._digest(image)) if image else b"",
            created_ns=status.created_at,
            started_ns=status.started_at,
            privileged=spec.privileged,
            pod=await self._pods.of(pod_id, lambda: self._pod(pod_id)) if pod_id else NO_POD,
            cgroup=spec.cgroup,
        )
        self._known.add(id)
        return _key(id), facts

    async def _told_pod(self, id: str) -> Told | None:
        """What stands for a pod, which is a container too."""
        try:
            got = await self._ask("PodSandboxStatus", Asked(id=id, verbose=True), GotPod)
        except CallFailed:
            return None
        status, told = got.status, _info(got.info)
        if status is None or status.id != id:
            return None
        spec, pod = understood(inside(told, "runtimeSpec")), self._pod_of(status)
        self._pods.put(id, pod)
        self._known.add(id)
        image = text(told, "image")
        return _key(id), facts_of(
            SANDBOX_NAME,
            kept(_labels(status.labels)),
            image=image,
            image_digest=await self._digests.of(image, lambda: self._digest(image)) if image else b"",
            created_ns=status.created_at,
            privileged=spec.privileged,
            pod=pod,
            cgroup=spec.cgroup,
        )

    async def _pod(self, id: str) -> Pod:
        got = await self._ask("PodSandboxStatus", Asked(id=id), GotPod)
        return self._pod_of(got.status) if got.status else NO_POD

    def _pod_of(self, status: PodStatus) -> Pod:
        who = status.metadata or PodMetadata()
        return pod_of(
            _labels(status.labels),
            _labels(status.annotations),
            name=who.name,
            namespace=who.namespace,
            uid=who.uid,
            node=self._node,
            created_ns=status.created_at,
        )

    async def _digest(self, image: str) -> bytes:
        """That of the manifest in a registry; empty for an image that was made here and is in none."""
        if "@" in image:
            return image.partition("@")[2].encode()
        try:
            got = await self._channel.ask("/runtime.v1.ImageService/ImageStatus", AskedImage(image=ImageSpec(image=image)), GotImage, {})
        except CallFailed:
            return b""
        first = got.image.repo_digests[0] if got.image and got.image.repo_digests else ""
        return first.partition("@")[2].encode()

    async def _ask(self, method: str, request: Nothing | Asked, answer: type[M]) -> M:
        return await self._channel.ask(f"/runtime.v1.RuntimeService/{method}", request, answer, {})

    def _events(self) -> LocalCall[Event]:
        return self._channel.call("/runtime.v1.RuntimeService/GetContainerEvents", Nothing(), Event, {})


async def _next(events: LocalCall[Event]) -> Event | None:
    """None where there are none: it was not told to send them, or knows no such call."""
    try:
        return await events.receive(None)
    except CallFailed:
        return None


def _key(id: str) -> Key:
    return Key(id.encode())


def _labels(entries: Sequence[Entry]) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _info(entries: Sequence[Entry]) -> Any:
    """What runtimes add in a verbose answer: all of them JSON by this name."""
    return parsed(_labels(entries).get("info", ""))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
