"""A running InfraSight for a test, its processes found and asked from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infrasight.client import Client, Subscription
from infrasight.errors import WireError
from infrasight.wire import Event, StatusResponse
from tests.ports import free_port
from tests.waiting import LIMIT_S, eventually

Row = dict[str, Any]
START_S = 2 * LIMIT_S
"""Until it runs, on a machine where its programs were never compiled before, and others compile too."""


def one_number(rows: list[Row]) -> int:
    """The one that these rows are."""
    (row,) = rows
    return int(next(iter(row.values())))


async def _rows(port: int, sql: str) -> list[Row]:
    async with Client("127.0.0.1", port) as client:
        return [json.loads(line) for line in b"".join([chunk async for chunk in client.query(sql)]).splitlines()]


async def _status(port: int) -> StatusResponse:
    async with Client("127.0.0.1", port) as client:
        return await client.status()


class System:
    """`infrasight up` on a directory and a port of its own. A context manager that ends it; everything it says goes to `log`."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory, self.port, self.log = directory, free_port(), directory / "up.log"
        command = [sys.executable, "-m", "infrasight.cli.main", "up", "--data-dir", str(directory / "data"), "--server-port", str(self.port)]
        self.command = [*command, "--prometheus-port", "0", "--server-prometheus-port", "0", "-o", "none", *arguments]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self.command, stdout=self.log.open("wb"), stderr=subprocess.STDOUT, start_new_session=True)
        try:
            self.wait_for("infrasight node ready")
        except BaseException:
            self._process.kill()
            raise
        return self

    def said(self, text: str) -> int:
        """How often the log has said this."""
        return self.log.read_text(errors="replace").count(text)

    def wait_for(self, text: str, times: int = 1) -> None:
        """Until the log has said this so many times."""
        eventually(lambda: self.said(text) >= times or self._process.poll() is not None, START_S, lambda: self.log.read_text(errors="replace"))
        assert self._process.poll() is None, f"ended: {self.log.read_text(errors='replace')}"

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            self._process.kill()

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait(2 * LIMIT_S)

    def pid_of(self, module: str) -> int:
        """The process of `infrasight.node` or `infrasight.server` that is our supervisor's child."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            if parent == self._process.pid and module.encode() in words:
                return int(entry.name)
        raise AssertionError(f"no {module} is running")

    def query(self, sql: str) -> list[Row]:
        """Rows of one statement."""
        return asyncio.run(_rows(self.port, sql))

    def status(self) -> StatusResponse:
        """How the server is."""
        return asyncio.run(_status(self.port))

    def count(self, sql: str) -> int:
        """The one number that a statement gives."""
        return one_number(self.query(sql))

    def rows_once(self, sql: str, true: Callable[[list[Row]], object], still_s: float = 0.5, within_s: float = LIMIT_S) -> list[Row]:
        """The rows of a statement, once this is true of them and they have stayed the same for a while; or as they are when time is over. Of what is
        asserted, all has to be in one statement: what is in another table, or was done by another process, may come later."""
        found: list[Row] | None = None
        since_s, end_s = time.monotonic(), time.monotonic() + within_s
        while time.monotonic() < end_s:
            before, found = found, self._answer(sql)
            if found is None or (still_s and found != before) or not true(found):
                since_s = time.monotonic()
            elif time.monotonic() - since_s >= still_s:
                break
            time.sleep(0.1)
        return found or []

    def _answer(self, sql: str) -> list[Row] | None:
        """None while there is no server."""
        try:
            return self.query(sql)
        except WireError:
            return None

    def wait_for_count(self, sql: str, wanted: int) -> int:
        """The one number that a statement gives, as `rows_once`, once it is `wanted` at least."""
        rows = self.rows_once(sql, lambda rows: one_number(rows) >= wanted)
        return one_number(rows) if rows else -1

    def wait_until_more(self, sql: str, least: int) -> None:
        """Until the one number that a statement gives is so large, while it may go on growing."""
        rows = self.rows_once(sql, lambda rows: one_number(rows) >= least, still_s=0)
        assert rows and one_number(rows) >= least, rows  # noqa: PT018 - the same, said at once

    @contextmanager
    def watched(self, **wanted: Any) -> Iterator[list[Event]]:
        """The events that people see as they happen, in a list that grows; what is healed in the store was seen as it was."""
        seen, begun, over = list[Event](), threading.Event(), threading.Event()

        async def watch() -> None:
            async with Client("127.0.0.1", self.port) as client, client.subscribe(**wanted) as events:
                begun.set()
                coming = asyncio.create_task(gather(events))
                await asyncio.to_thread(over.wait)
                coming.cancel()

        async def gather(events: Subscription) -> None:
            async for event in events:
                seen.append(event)

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(asyncio.run, watch())
            try:
                assert begun.wait(LIMIT_S)
                yield seen
            finally:
                over.set()
                watching.result()


def signalled(pid: int, number: signal.Signals) -> None:
    """Send a signal to one process."""
    os.kill(pid, number)
