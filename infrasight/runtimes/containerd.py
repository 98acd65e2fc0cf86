"""containerd by its own API: every container of every namespace, what it is, told as soon as it is made.

A container is made before its cgroup is, and what is made is told through a stream of events; so what it is is usually known before it does anything.

What Kubernetes has it run is told here as well, and completely: what the pod is called, its labels and annotations are with the container that stands
for the pod (its sandbox), which is made before the others. So nothing is asked through the CRI that is behind the same socket.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from infrasight.errors import CallFailed, Disconnected
from infrasight.runtimes.facts import Facts, Key, Remembered, Told, facts_of
from infrasight.runtimes.limits import SYSTEM, Limits
from infrasight.runtimes.loose import inside, parsed, text, texts
from infrasight.runtimes.pods import NO_POD, SANDBOX_NAME, Pod, kept, pod_of
from infrasight.runtimes.spec import Spec, read
from infrasight.wire.containerd import Container, Envelope, Filters, GotContainer, GotImage, Name, Namespaces, Nothing, Timestamp
from infrasight.wire.local import LocalChannel
from infrasight.wire.strict import parse

_FILTERS = ['topic~="^/containers/(create|update|delete)$"', 'topic~="^/images/"']
_OTHERS = frozenset({"moby"})
"""Namespaces of those who know more of their containers than they tell containerd: docker."""
_SANDBOX = "io.cri-containerd.sandbox.metadata"
"""What a sandbox's container has the pod's configuration under (containerd/pkg/cri/store/sandbox)."""


class Containerd:
    """One containerd, behind a socket."""

    tells = frozenset({b"containerd", b""})
    """Of whose containers it tells, as paths of cgroups name the runtime; the cgroupfs driver's of Kubernetes do not."""

    def __init__(self, socket: Path, answer_within_s: float = 5.0, node: str = "", door: str = "", limits: Limits = SYSTEM) -> None:
        """`node` is what Kubernetes calls this machine; `door` is the path to connect to, where `socket` is just what it is called."""
        self.socket, self._node, self._limits = socket, node, limits
        self._channel = LocalChannel(socket, "containerd", answer_within_s, answer_bytes=limits.answer_bytes, fields=limits.fields, door=door)
        self._digests, self._pods = Remembered[bytes](), Remembered[Pod]()

    async def containers(self) -> AsyncGenerator[Told | None, None]:
        """The containers that there are; then None, once all of those have been told; then those that are made, changed and removed, without end.
        To be left with `aclosing`.

        Disconnected when it is gone, hangs, or is no containerd; CallFailed when it refuses.
        """
        # Asked for first: what is made while the others are told would be in neither.
        async with self._channel.call("/containerd.services.events.v1.Events/Subscribe", Filters(filters=_FILTERS), Envelope, {}) as events:
            async with aclosing(self._all()) as there:
                async for told in there:
                    yield told
            yield None
            while (event := await events.receive(None)) is not None:
                if (news := await self._about(event)) is not None:
                    yield news
                await self._limits.pause()
        raise Disconnected(f"the containerd at {self.socket} tells no more")

    def seek(self, id: bytes) -> None:
        """Nothing needs to be done: what is made is told."""

    async def answer(self) -> None:
        """Have it answer something. Errors as of `containers`; a connection on which there are no news can have one that hangs at its end."""
        await self._namespaces()

    async def close(self) -> None:
        """Close the connection. Legal twice."""
        self._channel.close()

    async def _all(self) -> AsyncGenerator[Told, None]:
        for space in await self._namespaces():
            route = "/containerd.services.containers.v1.Containers/ListStream"
            async with self._channel.call(route, Nothing(), GotContainer, _in(space)) as listed:
                while (each := await listed.receive(self._channel.answer_within_s)) is not None:
                    if each.container is not None:
                        yield await self._told(space, each.container)
                    await self._limits.pause()

    async def _namespaces(self) -> list[str]:
        found = await self._channel.ask("/containerd.services.namespaces.v1.Namespaces/List", Nothing(), Namespaces, {})
        return [each.id for each in found.namespaces if each.id not in _OTHERS]

    async def _about(self, event: Envelope) -> Told | None:
        """What an event tells of a container, if of any."""
        space, topic = event.namespace, event.topic
        about = parse(event.event.value if event.event else b"", Name).id
        if topic.startswith("/images/"):
            self._digests.forget((space, about))
        if not topic.startswith("/containers/") or space in _OTHERS:
            return None
        if topic.endswith("/delete"):
            self._pods.forget((space, about))
            return Key(about.encode(), space.encode()), None
        container = await self._get(space, about)
        return None if container is None else await self._told(space, container)

    async def _get(self, space: str, id: str) -> Container | None:
        try:
            return (await self._channel.ask("/containerd.services.containers.v1.Containers/Get", Name(id=id), GotContainer, _in(space))).container
        except CallFailed:  # it is gone already
            return None

    async def _told(self, space: str, container: Container) -> Told:
        spec = read(container.spec.value if container.spec else b"")
        return Key(container.id.encode(), space.encode()), await self._facts(space, container, spec)

    async def _facts(self, space: str, container: Container, spec: Spec) -> Facts:
        image, labels, stands_for_pod = container.image, _labels(container), spec.pod == container.id
        return facts_of(
            SANDBOX_NAME if stands_for_pod else spec.name or container.id,
            kept(labels) if stands_for_pod else labels,
            image=image,
            image_digest=await self._digests.of((space, image), lambda: self._digest(space, image)) if image else b"",
            created_ns=_ns(container.created_at),
            privileged=spec.privileged,
            pod=await self._pod(space, spec.pod, container) if spec.pod else NO_POD,
            cgroup=spec.cgroup,
        )

    async def _pod(self, space: str, id: str, container: Container) -> Pod:
        """The pod of a container, which may be its sandbox."""

        async def ask() -> Pod:
            sandbox = await self._get(space, id)
            return self._pod_of(sandbox) if sandbox else pod_of(_labels(container))

        if id == container.id:
            self._pods.put((space, id), self._pod_of(container))
        return await self._pods.of((space, id), ask)

    def _pod_of(self, sandbox: Container) -> Pod:
        noted = next((each.value.value for each in sandbox.extensions if each.key == _SANDBOX and each.value), b"")
        config = inside(parsed(noted), "Metadata", "Config")
        who = inside(config, "metadata")
        return pod_of(
            _labels(sandbox),
            texts(inside(config, "annotations")),
            name=text(who, "name"),
            namespace=text(who, "namespace"),
            uid=text(who, "uid"),
            node=self._node,
            created_ns=_ns(sandbox.created_at),
        )

    async def _digest(self, space: str, image: str) -> bytes:
        """What an image's name stands for; empty when it is not known any more."""
        try:
            got = await self._channel.ask("/containerd.services.images.v1.Images/Get", Name(id=image), GotImage, _in(space))
        except CallFailed:
            return b""
        return got.image.target.digest.encode() if got.image and got.image.target else b""


def _in(space: str) -> dict[str, str]:
    return {"containerd-namespace": space}


def _labels(container: Container) -> dict[str, str]:
    return {entry.key: entry.value for entry in container.labels}


def _ns(time: Timestamp | None) -> int:
    return time.seconds * 10**9 + time.nanos if time else 0
