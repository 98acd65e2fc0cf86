"""A way to a port on which things go wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Self


@dataclass(eq=False)
class _Pair:
    """A connection from a client, and ours to the server for it."""

    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Link:
    """Listens on `port`, leads to `target`. What was in it when it froze goes on when it thaws, as packets do that are sent again."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._pairs: set[_Pair] = set()
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.port = 0
        self.down = False
        """Whether connections are refused, as soon as they are made."""
        self.delay_s = 0.0
        """How long each piece of what comes back is held up."""
        self.cut_after = 0
        """Bytes from the client after which its connection is cut, once; 0: never."""
        self.cuts = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self.thaw()
        self._server = await asyncio.start_server(self._lead, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.down = True
        self._server.close()
        self.cut()
        await asyncio.gather(*(task for pair in self._pairs for task in pair.tasks), return_exceptions=True)

    def freeze(self, *, there: bool = True, back: bool = True) -> None:
        """From now on nothing gets through to the server, or back from it, and nobody is told."""
        for stops, event in ((there, self._there), (back, self._back)):
            if stops:
                event.clear()

    def thaw(self) -> None:
        self._there.set()
        self._back.set()

    def cut(self) -> None:
        """Reset all connections."""
        for pair in list(self._pairs):
            self._end(pair)

    def forget(self) -> None:
        """The server's side of all connections is gone; the client's is open still, and silent: its end was never told."""
        for pair in list(self._pairs):
            for task in pair.tasks:
                task.cancel()
            pair.far.transport.abort()

    def _end(self, pair: _Pair) -> None:
        self._pairs.discard(pair)
        for task in pair.tasks:
            task.cancel()
        pair.near.transport.abort()
        pair.far.transport.abort()

    async def _lead(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        try:
            if self.down:
                raise ConnectionRefusedError
            back, far = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            near.transport.abort()
            return
        self.connections += 1
        pair = _Pair(near, far)
        self._pairs.add(pair)
        pair.tasks = [asyncio.create_task(self._forth(pair, reader)), asyncio.create_task(self._fro(pair, back))]

    async def _forth(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        sent = 0
        while data := await _read(reader):
            await self._there.wait()
            if self.cut_after and sent + len(data) >= self.cut_after:
                pair.far.write(data[: self.cut_after - sent])
                await pair.far.drain()
                self.cut_after = 0
                self.cuts += 1
                break
            sent += len(data)
            pair.far.write(data)
            await _drained(pair.far)
        self._end(pair)

    async def _fro(self, pair: _Pair, reader: asyncio.StreamReader) -> None:
        while data := await _read(reader):
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._back.wait()
            pair.near.write(data)
            await _drained(pair.near)
        self._end(pair)


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 16)
    except OSError:
        return b""


async def _drained(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.drain()
    except OSError:
        return
