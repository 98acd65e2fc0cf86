"""`infrasight query`: one SQL statement, its answer as a table, JSON or CSV."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

from infrasight.cli.ask import ascii_json, client_of, lines_of, utf8
from infrasight.cli.options import QueryOptions, Table
from infrasight.cli.screen import write
from infrasight.cli.table import table
from infrasight.errors import CommandLineError
from infrasight.present.safe import printable, text_of

if TYPE_CHECKING:
    from infrasight.client import Client

_NUMBERS = ("Int", "UInt", "Float", "Decimal")


def run(options: QueryOptions) -> int:
    """Ask and print the answer; the exit status."""
    sql = sys.stdin.read() if options.sql == "-" else utf8(options.sql)
    if not sql.strip():
        raise CommandLineError("there is no SQL to ask")
    asyncio.run(_run(options, sql))
    return 0


async def _run(options: QueryOptions, sql: str) -> None:
    if options.data_dir is None:
        await _ask(options, sql)
        return
    from infrasight.cli.temporary import server_on  # rarely needed

    async with server_on(options.data_dir, options) as reach:
        await _ask(reach, sql)


async def _ask(options: QueryOptions, sql: str) -> None:
    async with client_of(options) as client, aclosing(_ANSWERS[options.output](client, sql)) as answer:
        async for text in answer:
            write([text])


async def _table(client: Client, sql: str) -> AsyncGenerator[str, None]:
    answer = lines_of(client.query(sql, format="JSONCompactStringsEachRowWithNamesAndTypes"))
    rows = (_strings(line) async for line in answer)
    nothing: list[str] = []
    names, types = await anext(rows, nothing), await anext(rows, nothing)
    async for line in table(names, [each.removeprefix("Nullable(").startswith(_NUMBERS) for each in types], rows):
        yield line + "\n"


def _strings(line: bytes) -> list[str]:
    values: list[str] = json.loads(ascii_json(line))
    return values


async def _json(client: Client, sql: str) -> AsyncGenerator[str, None]:
    before = "[\n"
    async for line in lines_of(client.query(sql, format="JSONEachRow")):
        yield before + ascii_json(line)
        before = ",\n"
    yield "\n]\n" if before == ",\n" else "[]\n"


async def _csv(client: Client, sql: str) -> AsyncGenerator[str, None]:
    """As ClickHouse writes it; for a terminal, without what is not printable."""
    show: Callable[[str], str] = printable if sys.stdout.isatty() else str
    async for line in lines_of(client.query(sql, format="CSVWithNames")):
        yield show(text_of(line)) + "\n"


_ANSWERS: dict[Table, Callable[[Client, str], AsyncGenerator[str, None]]] = {Table.TABLE: _table, Table.JSON: _json, Table.CSV: _csv}
