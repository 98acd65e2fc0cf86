"""Calls to gRPC services of others, on unix sockets of this machine. Whatever goes wrong is one of our errors, with one line."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import grpclib.client
from betterproto2 import Message
from grpclib.config import Configuration
from grpclib.const import Cardinality
from grpclib.exceptions import GRPCError

from infrasight.errors import CallFailed, Disconnected
from infrasight.wire.channel import Waking, translated
from infrasight.wire.framing import Encoder, read_message
from infrasight.wire.strict import MAX_FIELDS, parse

M = TypeVar("M", bound=Message)

MAX_ANSWER_BYTES = 16 << 20
"""Of one message: the most that containerd sends."""
_WINDOWS = Configuration(http2_connection_window_size=8 << 20, http2_stream_window_size=4 << 20)
"""What the service may send before we read it, in bytes."""


class LocalChannel:
    """One connection to the unix socket at `path`, made when it is first needed and again when it broke."""

    def __init__(
        self,
        path: Path,
        server: str,
        answer_within_s: float = 5.0,
        *,
        answer_bytes: int = MAX_ANSWER_BYTES,
        fields: int = MAX_FIELDS,
        door: str = "",
    ) -> None:
        """`server` is what listens there, in words; `door` is the path to connect to, where `path` is just what it is called. One that does not
        answer within `answer_within_s` seconds is Disconnected, as is one that answers with a message of more than `answer_bytes` or `fields`."""
        self.target, self.server, self.answer_within_s, self.answer_bytes, self.fields = str(path), server, answer_within_s, answer_bytes, fields
        self._channel = grpclib.client.Channel(path=door or str(path), codec=Encoder(), config=_WINDOWS)

    async def ask(self, route: str, request: Message, answer: type[M], metadata: Mapping[str, str]) -> M:
        """The answer to a request. CallFailed when the service refuses it, Disconnected when it is gone, hangs, or talks rubbish."""
        async with self.call(route, request, answer, metadata) as call:
            found = await call.receive(self.answer_within_s)
        if found is None:
            raise Disconnected(f"the {self.server} at {self.target} said nothing")
        return found

    def call(self, route: str, request: Message, answer: type[M], metadata: Mapping[str, str]) -> LocalCall[M]:
        """A request with any number of answers; it is sent when the call is entered."""
        stream = self._channel.request(route, Cardinality.UNARY_STREAM, type(request), answer, metadata=metadata)
        return LocalCall(stream, request, answer, self)

    async def connect(self) -> None:
        """Connect, if there is no connection. Disconnected when nobody listens there."""
        with translated(self.target, Disconnected, server=self.server):
            async with asyncio.timeout(self.answer_within_s):
                await self._channel.__connect__()

    def close(self) -> None:
        """Close the connection; calls that run fail with Disconnected. Legal twice."""
        self._channel.close()


class LocalCall(Generic[M]):
    """One call: an async context manager that sends its request, and cancels what still runs when it is left."""

    def __init__(self, stream: grpclib.client.Stream[Any, Any], request: Message, answer: type[M], channel: LocalChannel) -> None:
        self._stream, self._request, self._answer, self._channel = stream, request, answer, channel
        self._begun = False

    async def __aenter__(self) -> Self:
        await self._channel.connect()
        await self._stream.__aenter__()
        self._stream._wrapper = Waking()
        try:
            with self._translated():
                async with asyncio.timeout(self._channel.answer_within_s):
                    await self._stream.send_message(self._request, end=True)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    async def receive(self, within_s: float | None) -> M | None:
        """The next answer, None after the last. Errors as of `LocalChannel.ask`; without `within_s` it may take as long as it likes."""
        with self._translated():
            async with asyncio.timeout(within_s):
                if not self._begun:
                    await self._stream.recv_initial_metadata()
                    self._begun = True
                with self._stream._wrapper:
                    data = await read_message(self._stream._stream, self._channel.answer_bytes)
                if data is None:
                    await self._stream.recv_trailing_metadata()
                    return None
            return parse(data, self._answer, self._channel.fields)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        over = GeneratorExit()  # as in channel.py: without an exception grpclib waits for the service to end the call
        with contextlib.suppress(CallFailed, Disconnected), self._translated():
            await self._stream.__aexit__(type(over), over, None)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        with translated(self._channel.target, Disconnected, server=self._channel.server):
            try:
                yield
            except GRPCError as error:
                text = error.message or error.status.name.lower().replace("_", " ")
                raise CallFailed(f"{self._channel.target}: {text}") from None
