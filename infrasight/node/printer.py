"""Ends of the line for a node without a server: events to standard output, or to nowhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, TextIO

from infrasight.actors import Actor, Mailbox
from infrasight.node.flow import Batch, Encoded
from infrasight.present.lines import compact_line, json_line
from infrasight.present.rows import rows_of


class Printer(Actor):
    """Prints each event as a line, as soon as it comes. Slower than the kernel can be: what is then lost is counted at the ring."""

    name = "printer"

    def __init__(self, inbox: Mailbox[Batch], output: str, stream: TextIO = sys.stdout) -> None:
        self._inbox, self._stream = inbox, stream
        self._line: Callable[[str, Any], str] = json_line if output == "json" else self._compact
        self._colour = stream.isatty()

    def _compact(self, kind: str, row: Any) -> str:
        return compact_line(kind, row, self._colour)

    async def run(self) -> None:
        """Until the inbox is closed and empty, or nobody reads the output any more."""
        async for batch in self._inbox:
            try:
                await asyncio.to_thread(self._print, batch)
            except BrokenPipeError:
                return

    def _print(self, batch: Batch) -> None:
        self._stream.write("".join(self._line(batch.kind, row) + "\n" for row in rows_of(batch.kind, batch.columns)))
        self._stream.flush()


class Discarder(Actor):
    """Drops encoded batches: for measuring what comes before it, and for metrics without a server."""

    name = "discarder"

    def __init__(self, inbox: Mailbox[Encoded]) -> None:
        self._inbox = inbox

    async def run(self) -> None:
        """Until the inbox is closed and empty."""
        async for _ in self._inbox:
            pass
