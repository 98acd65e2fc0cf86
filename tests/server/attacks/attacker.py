"""What an attacker does: bytes on connections of its own, from an address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError

ADDRESS = "127.0.0.2"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
SHIP, QUERY = "/infrasight.v1.Collector/Ship", "/infrasight.v1.Events/Query"


def http2(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Attacker:
    """One connection. `h2` makes what is meant to be well-formed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False))
        self.h2.initiate_connection()

    async def send(self, data: bytes = b"") -> None:
        """Send bytes, after what `h2` has made. Whether the server takes them is its affair."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(self.h2.data_to_send() + data)
            await self.writer.drain()

    def request(self, path: str, stream: int = 1, body: bytes = b"", end: bool = False) -> None:
        """A call, to be sent."""
        usual = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"), ("te", "trailers")]
        self.h2.send_headers(stream, [*usual, ("content-type", "application/grpc")])
        if body or end:
            self.h2.send_data(stream, body, end_stream=end)

    async def pour(self, size: int, stream: int = 1) -> None:
        """So many zeros, as fast as the server's windows let them in, or until it closes the connection, with a GOAWAY or without."""
        with contextlib.suppress(ConnectionError, ProtocolError):
            while size:
                room = min(size, self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if room > 0:
                    self.h2.send_data(stream, bytes(room))
                    size -= room
                    await self.send()
                elif data := await self.reader.read(65536):
                    self.h2.receive_data(data)
                else:
                    return

    async def until_closed(self, within_s: float = 20.0) -> bytes:
        """What the server says until it closes the connection."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(within_s):
                return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def attacker(port: int, address: str = ADDRESS) -> AsyncIterator[Attacker]:
    """A connection to the server."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        yield Attacker(reader, writer)
    finally:
        writer.transport.abort()
