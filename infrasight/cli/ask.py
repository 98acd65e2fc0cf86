"""Questions to the server, and its answers as text: the one place where the command line meets `infrasight.client`."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from infrasight.present.safe import text_of

if TYPE_CHECKING:
    from infrasight.cli.options import Reach
    from infrasight.client import Client

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_ESCAPE = re.compile(r"\\(.)")


def client_of(reach: Reach) -> Client:
    """A client for the server that the options name; it is not connected yet."""
    from infrasight.client import Client  # only commands that ask something pay for this import

    return Client(reach.server_addr, reach.server_port, insecure=reach.insecure, credentials=reach.credentials)


def utf8(argument: str) -> str:
    """An argument of the command line; a byte of it that is not UTF-8 as \\xNN, which is how filters and ClickHouse's strings write it."""
    return text_of(os.fsencode(argument))


def literal(argument: str) -> str:
    """An argument of the command line as a string in SQL."""
    return "'" + utf8(argument.replace("\\", "\\\\").replace("'", "\\'")) + "'"


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The lines of an answer that comes in chunks cut anywhere, without their newlines."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


def ascii_json(line: bytes) -> str:
    """JSON from ClickHouse as plain ASCII with the same meaning; a byte that is not UTF-8 becomes the text \\xNN."""
    text = line.decode("utf-8", "surrogateescape")
    if "\\/" in text:  # ClickHouse escapes every slash, which makes paths hard to read
        text = _ESCAPE.sub(lambda match: "/" if match[1] == "/" else match[0], text)
    return text if text.isascii() and text.isprintable() else _NOT_PLAIN.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else json.dumps(match[0])[1:-1] if code != 0x7F else "\\u007f"


async def rows_of_query(client: Client, sql: str) -> AsyncIterator[dict[str, Any]]:
    """Each row of the answer by column name. QueryRefused, QueryFailed, WireError."""
    async for line in lines_of(client.query(sql, format="JSONEachRow")):
        yield json.loads(ascii_json(line))
