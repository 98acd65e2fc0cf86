"""A containerd made by hand, that answers as it is told to, on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

from grpclib._typing import IServable
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.server import Server, Stream

from infrasight.wire.containerd import (
    Any as Packed,
)
from infrasight.wire.containerd import (
    Container,
    Entry,
    Envelope,
    Filters,
    GotContainer,
    GotImage,
    Image,
    Name,
    Namespaces,
    Nothing,
    Target,
    Timestamp,
)

SERVICES = "/containerd.services"
DIGEST = "sha256:" + "5" * 64


class _Codec(CodecBase):
    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return message_type.parse(data)


def container(id: str, image: str = "img:1", **labels: str) -> Container:
    """Labels with an underscore for each point in their names."""
    entries = [Entry(key=name.replace("_", "."), value=value) for name, value in labels.items()]
    return Container(id=id, image=image, labels=entries, created_at=Timestamp(seconds=7, nanos=9), spec=Packed(value=b"{}"))


class FakeContainerd:
    """`spaces`: by namespace its containers by id. `asked` is what it was asked for."""

    def __init__(self) -> None:
        self.spaces: dict[str, dict[str, Container]] = {"default": {}}
        self.images = {"img:1": DIGEST}
        self.asked: list[str] = []
        self.subscribers: list[asyncio.Queue[Envelope | None]] = []
        self.hanging = False

    def tell(self, topic: str, id: str, space: str = "default") -> None:
        """An event."""
        for queue in self.subscribers:
            queue.put_nowait(Envelope(namespace=space, topic=topic, event=Packed(value=bytes(Name(id=id)))))

    def make(self, made: Container, space: str = "default") -> None:
        """Another container."""
        self.spaces[space][made.id] = made
        self.tell("/containers/create", made.id, space)

    def end_streams(self) -> None:
        for queue in self.subscribers:
            queue.put_nowait(None)

    def __mapping__(self) -> dict[str, Handler]:
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        return {
            f"{SERVICES}.events.v1.Events/Subscribe": Handler(self._subscribe, many, Filters, Envelope),
            f"{SERVICES}.namespaces.v1.Namespaces/List": Handler(self._namespaces, one, Nothing, Namespaces),
            f"{SERVICES}.containers.v1.Containers/ListStream": Handler(self._list, many, Nothing, GotContainer),
            f"{SERVICES}.containers.v1.Containers/Get": Handler(self._get, one, Name, GotContainer),
            f"{SERVICES}.images.v1.Images/Get": Handler(self._image, one, Name, GotImage),
        }

    async def _take(self, stream: Stream[Any, Any]) -> tuple[str, Any]:
        request = await stream.recv_message()
        space = str(stream.metadata.get("containerd-namespace", "") if stream.metadata else "")
        self.asked.append(f"{space}/{getattr(request, 'id', '')}")
        if self.hanging:
            await asyncio.Event().wait()
        return space, request

    async def _subscribe(self, stream: Stream[Any, Any]) -> None:
        await stream.recv_message()
        queue: asyncio.Queue[Envelope | None] = asyncio.Queue()
        self.subscribers.append(queue)
        while (event := await queue.get()) is not None:
            await stream.send_message(event)

    async def _namespaces(self, stream: Stream[Any, Any]) -> None:
        await self._take(stream)
        await stream.send_message(Namespaces(namespaces=[Name(id=space) for space in self.spaces]))

    async def _list(self, stream: Stream[Any, Any]) -> None:
        space, _ = await self._take(stream)
        for each in self.spaces[space].values():
            await stream.send_message(GotContainer(container=each))

    async def _get(self, stream: Stream[Any, Any]) -> None:
        space, request = await self._take(stream)
        found = self.spaces[space].get(request.id)
        if found is None:
            raise GRPCError(Status.NOT_FOUND, f"container {request.id} in namespace {space}: not found")
        await stream.send_message(GotContainer(container=found))

    async def _image(self, stream: Stream[Any, Any]) -> None:
        _, request = await self._take(stream)
        if request.id not in self.images:
            raise GRPCError(Status.NOT_FOUND, "no such image")
        await stream.send_message(GotImage(image=Image(name=request.id, target=Target(digest=self.images[request.id]))))


F = TypeVar("F", bound=IServable)


@contextlib.asynccontextmanager
async def listening(fake: F, socket: Path) -> AsyncIterator[F]:
    server = Server([fake], codec=_Codec())
    await server.start(path=str(socket))
    try:
        yield fake
    finally:
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def saying(socket: Path, answer: bytes | None) -> AsyncIterator[None]:
    """Somebody who answers with these bytes, whatever is said; with None never."""
    over = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(serve, str(socket))
    try:
        yield
    finally:
        over.set()
        server.close()
        await server.wait_closed()
