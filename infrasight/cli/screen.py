"""Events on the standard output, as lines. A reader that is slow slows down this process only, and not its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from infrasight.actors.mailbox import Mailbox
from infrasight.cli.together import together
from infrasight.errors import CommandLineError, MailboxClosed
from infrasight.present.lines import compact_line, json_line

if TYPE_CHECKING:
    from infrasight.wire import Event

_BURST_LINES = 1000


def row_of(event: Event) -> tuple[str, dict[str, Any]]:
    """The kind and the row in an event; ("", {}) when it is of a kind that this version does not know."""
    for field in dataclasses.fields(event):
        message = getattr(event, field.name)
        if message is not None:
            return field.name, {column.name: getattr(message, column.name) for column in dataclasses.fields(message)}
    return "", {}


class Screen:
    """Turns rows into lines for wherever standard output goes: colour and cut lines for a terminal only."""

    def __init__(self, *, json: bool, colour: bool = True, trunc: bool = True, environ: Mapping[str, str] = os.environ) -> None:
        """`colour` and `trunc` allow what a terminal may have; the variable NO_COLOR forbids colour."""
        self.is_terminal = sys.stdout.isatty()
        self._json = json
        self._colour = colour and self.is_terminal and not environ.get("NO_COLOR")
        self._trunc = trunc and self.is_terminal
        self._nodes: set[str] = set()

    def line(self, kind: str, row: Mapping[str, Any]) -> str:
        """One event with its newline. The node is shown from the moment on that there is a second one."""
        if self._json:
            return json_line(kind, row) + "\n"
        self._nodes.add(row["node"])
        return compact_line(kind, row, self._colour, node=len(self._nodes) > 1, width=self._width()) + "\n"

    def _width(self) -> int | None:
        """Columns of the terminal now; None when lines are not to be cut, or it does not say."""
        with contextlib.suppress(OSError):
            return (os.get_terminal_size(sys.stdout.fileno()).columns or None) if self._trunc else None
        return None

    async def show(self, events: AsyncIterable[Event]) -> None:
        """Show events until there are no more. BrokenPipeError when nobody reads them; then, and when cancelled, some may not be shown."""
        lines: Mailbox[str] = Mailbox("screen", limit=_BURST_LINES)
        async with together() as tasks:
            tasks.create_task(_write(lines), name="screen.writer")
            async for event in events:
                kind, row = row_of(event)
                if kind:
                    await lines.put(self.line(kind, row))
            lines.close()


async def _write(lines: Mailbox[str]) -> None:
    """Write whatever is there at once, outside of the event loop, so that a full pipe blocks nothing else."""
    try:
        while True:
            await asyncio.to_thread(write, [await lines.get(), *iter(lines.get_nowait, None)])
    except MailboxClosed:
        return


def write(lines: Iterable[str]) -> None:
    """Write lines and flush. BrokenPipeError when nobody reads them any more, CommandLineError when they cannot be written."""
    try:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno == errno.EIO:  # a terminal that is gone
            raise BrokenPipeError from error
        raise CommandLineError(f"cannot write to the standard output: {error.strerror}") from error
