"""cri-o made by hand: pods and containers that do nothing, told of as cri-o tells of them."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from infrasight.wire._generated.others.runtimes.cri_driving import CreateContainer, Done, Id, RunPod
from infrasight.wire.cri import (
    Asked,
    AskedImage,
    ContainerMetadata,
    ContainerStatus,
    Entry,
    Event,
    GotContainer,
    GotImage,
    GotPod,
    Image,
    ImageSpec,
    Listed,
    Name,
    Nothing,
    PodMetadata,
    PodStatus,
    Version,
    What,
)

RUNTIME = "/runtime.v1.RuntimeService"
IMAGE_ID = "1" * 64
DIGEST = "sha256:" + "5" * 64
_EVERYTHING = {
    "process": {"capabilities": {"bounding": ["CAP_SYS_ADMIN"]}},
    "linux": {"resources": {"devices": [{"allow": True, "access": "rwm"}]}},
}


def entries(told: dict[str, str]) -> list[Entry]:
    return [Entry(key=key, value=value) for key, value in told.items()]


class FakeCri:
    """`asked` is what it was asked for; `events` whether it was told to send some."""

    def __init__(self, name: str = "cri-o", *, events: bool = False) -> None:
        self.name, self.events = name, events
        self.pods, self.containers = dict[str, GotPod](), dict[str, GotContainer]()
        self.asked: list[str] = []
        self.listeners: list[asyncio.Queue[Event | None]] = []
        self.hanging = False

    def tell(self, id: str, what: What) -> None:
        """An event."""
        for queue in self.listeners:
            queue.put_nowait(Event(id=id, what=what))

    def end_streams(self) -> None:
        for queue in self.listeners:
            queue.put_nowait(None)

    def __mapping__(self) -> dict[str, Handler]:
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        answers: dict[str, tuple[Any, Any, Any]] = {
            "Version": (lambda _: Version(runtime_name=self.name), Nothing, Version),
            "ListPodSandbox": (lambda _: Listed(those=[Name(id=id) for id in self.pods]), Nothing, Listed),
            "ListContainers": (lambda _: Listed(those=[Name(id=id) for id in self.containers]), Nothing, Listed),
            "ContainerStatus": (lambda asked: self._found(self.containers, asked.id), Asked, GotContainer),
            "PodSandboxStatus": (lambda asked: self._found(self.pods, asked.id), Asked, GotPod),
            "RunPodSandbox": (self._run_pod, RunPod, Id),
            "CreateContainer": (self._create, CreateContainer, Id),
            "StartContainer": (lambda asked: self.tell(asked.id, What.STARTED) or Done(), Id, Done),
            "RemoveContainer": (self._remove, Id, Done),
            "StopPodSandbox": (lambda _: Done(), Id, Done),
            "RemovePodSandbox": (self._remove, Id, Done),
        }
        handlers = {f"{RUNTIME}/{name}": Handler(self._answering(name, answer), one, *types) for name, (answer, *types) in answers.items()}
        handlers["/runtime.v1.ImageService/ImageStatus"] = Handler(self._answering("ImageStatus", self._image), one, AskedImage, GotImage)
        return handlers | {f"{RUNTIME}/GetContainerEvents": Handler(self._events, many, Nothing, Event)}

    def _answering(self, name: str, answer: Any) -> Any:
        async def handle(stream: Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            self.asked.append(f"{name} {getattr(request, 'id', '')}".strip())
            if self.hanging:
                await asyncio.Event().wait()
            await stream.send_message(answer(request))

        return handle

    async def _events(self, stream: Stream[Any, Any]) -> None:
        """None, without a word, where it was not told to send them (cri-o, server/container_events.go)."""
        await stream.recv_message()
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        self.listeners += [queue] if self.events else []
        while self.events and (event := await queue.get()) is not None:
            await stream.send_message(event)

    @staticmethod
    def _found(those: dict[str, Any], id: str) -> Any:
        """By the beginning of an id, too."""
        found = next((each for key, each in those.items() if key.startswith(id)), None)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"could not find {id!r}")
        return found

    def _run_pod(self, asked: RunPod) -> Id:
        id, config = uuid.uuid4().hex * 2, asked.config
        assert config is not None and config.metadata is not None  # noqa: PT018
        who = PodMetadata(name=config.metadata.name, uid=config.metadata.uid, namespace=config.metadata.namespace)
        labels, notes = entries(config.labels), entries(config.annotations)
        info = {"image": "pause:1", "runtimeSpec": {"linux": {"cgroupsPath": f"kubepods.slice:crio:{id}"}}}
        status = PodStatus(id=id, metadata=who, created_at=7_000_000_009, labels=labels, annotations=notes)
        self.pods[id] = GotPod(status=status, info=entries({"info": json.dumps(info)}))
        self.tell(id, What.CREATED)
        return Id(id=id)

    def _create(self, asked: CreateContainer) -> Id:
        id, config = uuid.uuid4().hex * 2, asked.config
        assert config is not None and config.metadata is not None and config.image is not None  # noqa: PT018
        privileged = bool(config.linux and config.linux.security and config.linux.security.privileged)
        info = {"sandboxID": asked.pod, "runtimeSpec": _EVERYTHING if privileged else {}}
        status = ContainerStatus(
            id=id,
            metadata=ContainerMetadata(name=config.metadata.name),
            created_at=8_000_000_009,
            started_at=9_000_000_009,
            image=ImageSpec(image=config.image.image),
            image_ref=IMAGE_ID,
            labels=entries(config.labels),
        )
        self.containers[id] = GotContainer(status=status, info=entries({"info": json.dumps(info)}))
        self.tell(id, What.CREATED)
        return Id(id=id)

    def _remove(self, asked: Id) -> Done:
        if self.containers.pop(asked.id, None) or self.pods.pop(asked.id, None):
            self.tell(asked.id, What.DELETED)
        return Done()

    def _image(self, asked: AskedImage) -> GotImage:
        wanted = asked.image is not None and asked.image.image == IMAGE_ID
        return GotImage(image=Image(repo_digests=[f"shop/web@{DIGEST}"])) if wanted else GotImage()
