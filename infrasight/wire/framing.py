"""gRPC's framing, read beneath grpclib: its own `recv_message` believes any length and lets out whatever decoding raises."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import grpclib.protocol
from betterproto2 import Message
from grpclib.encoding.base import CodecBase
from h2.exceptions import H2Error

from infrasight.errors import Disconnected, InvalidRequest

_PREFIX = struct.Struct(">BI")
"""Before each message: whether it is compressed, and its length in bytes."""


class Late(Disconnected):
    """The other side, or the way to it, is too slow: it may try again."""


async def read_message(stream: grpclib.protocol.Stream, max_bytes: int, within_s: float | None = None) -> bytes | None:
    """The bytes of the next message, None at the end. InvalidRequest when it is longer than `max_bytes`, compressed or cut off, or when the rest of
    it has not come `within_s` after its length (Late); Disconnected when the connection is closed meanwhile."""
    prefix = await _read(stream, _PREFIX.size)
    if not prefix:
        return None
    compressed, length = _PREFIX.unpack(prefix)
    if compressed:
        raise InvalidRequest("compressed gRPC messages are not taken")
    if length > max_bytes:
        raise InvalidRequest(f"a message of {length} bytes: at most {max_bytes} are taken")
    try:
        async with asyncio.timeout(within_s):
            body = await _read(stream, length)
    except TimeoutError:
        raise Late(f"a message of {length} bytes has not come within {within_s:g} s") from None
    if len(body) != length:
        raise InvalidRequest("a message is cut off")
    return body


async def _read(stream: grpclib.protocol.Stream, size: int) -> bytes:
    try:
        return await stream.recv_data(size)
    except AssertionError:  # how grpclib says that the stream ended in the middle
        raise InvalidRequest("a message is cut off") from None
    except (AttributeError, H2Error):
        if stream.connection.is_closing():  # grpclib goes on to tell a connection that is closed what it has read
            raise Disconnected("the other side is gone") from None
        raise


class Encoder(CodecBase):
    """What grpclib sends with: our messages, or bytes that are a message already. It decodes nothing, since we read beneath."""

    __content_subtype__ = "proto"

    def encode(self, message: Message | bytes, message_type: Any) -> bytes:
        """The wire form of `message`."""
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Never called: see `read_message`."""
        raise NotImplementedError
