"""HTTP, as those speak it who tell of containers and pods: answers bounded in bytes and time, and whatever goes wrong as one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from infrasight.errors import Disconnected
from infrasight.wire.tls import in_words

_ERRORS = aiohttp.ClientError, aiohttp.http.HttpProcessingError, OSError, ValueError
_ALIVE = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""A machine that is gone without a word is noticed after a minute, also where nothing is said for long."""


class Answer:
    """One that has begun."""

    def __init__(self, called: str, response: aiohttp.ClientResponse, most: int) -> None:
        self._called, self._response, self._most = called, response, most
        self.status, self.headers, self.path = response.status, response.headers, response.url.path[:100]

    async def json(self) -> Any:
        """All of it. Disconnected when it is too long, or no JSON."""
        body = bytearray()
        async for chunk in self._response.content.iter_any():
            body += chunk
            if len(body) > self._most:
                raise Disconnected(f"{self._called} answers with more than {self._most} bytes")
        try:
            return json.loads(body)
        except RecursionError:
            raise Disconnected(f"{self._called} does not answer in JSON") from None

    async def lines(self, most: int) -> AsyncGenerator[bytes, None]:
        """Line by line, as they come, without their ends; nothing of one that is longer than `most` bytes. What is after the last end is no line."""
        line, whole = bytearray(), True
        async for chunk in self._response.content.iter_any():
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                if whole:
                    yield bytes(line + end) if len(line) + len(end) <= most else b""
                line, whole = bytearray(), True
            line += rest if whole else b""
            if len(line) > most:
                yield b""
                line, whole = bytearray(), False


class Http:
    """Connections to one service. A context manager."""

    def __init__(self, called: str, base: str, connector: aiohttp.BaseConnector, answer_within_s: float, answer_bytes: int) -> None:
        """`called` is what it is called in errors, `base` what its paths are put behind; an answer has `answer_bytes` at most."""
        self._called, self._base, self._within_s, self._most = called, base, answer_within_s, answer_bytes
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    @classmethod
    def local(cls, path: Path, door: str, answer_within_s: float, answer_bytes: int) -> Http:
        """Behind the unix socket at `path`; `door` is the path to connect to, where that is just what it is called."""
        return cls(str(path), "http://localhost", aiohttp.UnixConnector(door or str(path), limit=4), answer_within_s, answer_bytes)

    @classmethod
    def remote(cls, url: str, answer_within_s: float, answer_bytes: int) -> Http:
        """At an address."""
        return cls(url, url, aiohttp.TCPConnector(limit=4, socket_factory=_that_stays_alive), answer_within_s, answer_bytes)

    @asynccontextmanager
    async def ask(
        self,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        *,
        within_s: float | None,
        begin_within_s: float | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> AsyncIterator[Answer]:
        """The answer to a GET, whatever its status; it may take `within_s` seconds in all, and `begin_within_s` to begin. Nobody is followed to
        another place. Disconnected when it is gone, hangs, or talks rubbish."""
        limit = aiohttp.ClientTimeout(total=within_s, sock_connect=self._within_s)
        more: dict[str, Any] = {"headers": headers, "timeout": limit, "ssl": tls or True, "allow_redirects": False}
        with self._translated():
            async with asyncio.timeout(begin_within_s) as begun, self._session.get(self._base + path, params=params, **more) as response:
                begun.reschedule(None)
                yield Answer(self._called, response, self._most)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. Legal twice."""
        await self._session.close()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            raise Disconnected(f"{self._called} does not answer") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise Disconnected(f"cannot talk to {self._called}: {in_words(error.certificate_error)}") from None
        except aiohttp.ClientConnectorSSLError as error:
            raise Disconnected(f"cannot talk to {self._called}: {in_words(error.os_error)}") from None
        except _ERRORS as error:
            raise Disconnected(f"cannot talk to {self._called}: {' '.join(str(error).split())[:200]}") from None


def _that_stays_alive(address: Any) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _ALIVE.items():
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
