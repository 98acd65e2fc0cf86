"""A running InfraSight for a test, its processes found and asked from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from infrasight.client import Client
from infrasight.errors import WireError
from infrasight.wire import StatusResponse
from tests.ports import free_port

Row = dict[str, Any]


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
        self.wait_for("infrasight node ready")
        return self

    def wait_for(self, text: str, times: int = 1, within_s: float = 60) -> None:
        """Until the log has said `text` so many times."""
        end = time.monotonic() + within_s
        while self.log.read_text(errors="replace").count(text) < times:
            assert self._process.poll() is None, f"ended: {self.log.read_text(errors='replace')}"
            assert time.monotonic() < end, f"no {text!r} in time: {self.log.read_text(errors='replace')}"
            time.sleep(0.05)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> int:
        """End it as Ctrl-C does; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self._process.wait(60)

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
        (row,) = self.query(sql)
        return int(next(iter(row.values())))

    def wait_for_count(self, sql: str, wanted: int, within_s: float = 20) -> int:
        """The number, once it has reached `wanted` and stayed there for half a second, or when time is over."""
        end, found = time.monotonic() + within_s, -1
        while time.monotonic() < end:
            try:
                before, found = found, self.count(sql)
            except WireError:
                before, found = -1, -1
            if found == before and found >= wanted:
                return found
            time.sleep(0.5)
        return found


def signalled(pid: int, number: signal.Signals) -> None:
    """Send a signal to one process."""
    os.kill(pid, number)
