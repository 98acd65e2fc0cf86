"""Nodes and servers as processes, and what became of the rows of a node."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from infrasight.client import Client
from infrasight.errors import StoreUnavailable, WireError
from infrasight.wire import StatusResponse
from tests.faults.node import NUMBER, SHARES, Produced
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

ROOT = Path(__file__).resolve().parents[2]
Ask = Callable[[str], Awaitable[list[list[str]]]]
"""The rows of a query whose columns are strings. Raises one of `AWAY`."""
AWAY = (StoreUnavailable, WireError)
"""What is raised where nobody answers."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Load:
    """How hard, and for how long."""

    rate: float
    """Rows a second of a node."""
    fault_s: float
    """How long a fault lasts."""
    times: int
    """How often something is killed, restarted or cut."""
    patient: bool
    """Whether silence is noticed as late as it is by default."""
    within_s: float
    """In which everything is to be over."""


QUICK = Load(rate=2_000, fault_s=2.5, times=2, patient=False, within_s=100)
FULL = Load(rate=5_000, fault_s=45, times=20, patient=True, within_s=300)


class Process:
    """A program of ours. `log` has what it says in all its lives."""

    def __init__(self, log: Path, *command: str, **environment: str) -> None:
        self.log, self.command = log, [sys.executable, "-m", *command]
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("INFRASIGHT_", "SERVER_", "PROMETHEUS_"))}
        self.environment |= {"PYTHONPATH": str(ROOT), **environment}
        self.child: subprocess.Popen[bytes] | None = None

    def spawn(self, *more: str) -> None:
        with self.log.open("ab") as out:
            self.child = subprocess.Popen([*self.command, *more], stdout=out, stderr=out, env=self.environment, cwd=ROOT)

    def said(self, text: str) -> int:
        """How often, in all lives."""
        return self.log.read_text(errors="replace").count(text)

    async def start(self, says: str, *more: str) -> None:
        """Returns when it is ready."""
        before = self.said(says) if self.log.exists() else 0
        self.spawn(*more)
        await until(lambda: self.said(says) > before or self.status is not None)
        assert self.status is None, self.log.read_text(errors="replace")[-3000:]

    @property
    def status(self) -> int | None:
        """Its exit status, once it has ended."""
        assert self.child is not None
        return self.child.poll()

    def signal(self, number: signal.Signals) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    async def ended(self, within_s: float = LIMIT_S) -> int:
        """Its exit status, when it has ended."""
        await until(lambda: self.status is not None, within_s)
        assert self.status is not None
        return self.status

    async def kill(self) -> None:
        """kill -9. Legal when it has ended."""
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGKILL)
            self.child.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(signal.SIGCONT)
        await self.kill()


class Server(Process):
    """A server of ours. Its port stays the same when it is started again."""

    def __init__(self, directory: Path, *options: str, store: str = "", name: str = "server", **environment: str) -> None:
        self.port = free_port()
        given = (f"--server-port={self.port}", f"--store={store or f'chdb://{directory}/data'}", "--prometheus-port=0", *options)
        super().__init__(directory / f"{name}.log", "tests.faults.server", *given, **environment)

    async def begin(self, *more: str) -> None:
        await self.start("infrasight server ready", *more)

    async def end(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def ask(self, sql: str) -> list[list[str]]:
        async with Client(port=self.port) as client:
            text = b"".join([chunk async for chunk in client.query(sql, format="TSV")])
        return [line.split("\t") for line in text.decode().splitlines()]

    async def state(self) -> StatusResponse:
        """How it is."""
        async with Client(port=self.port) as client:
            return await client.status()


class Node(Process):
    """A node. Its directory, and so its spool, stay the same when it is started again."""

    def __init__(self, directory: Path, load: Load, *ports: int, name: str = "n1", spool: Path | None = None, first: int = 0, **more: Any) -> None:
        directory.mkdir(exist_ok=True)
        environment = {name: more.pop(name) for name in list(more) if name.isupper()}
        given = {"spool": spool or directory / "spool", "name": name, "rate": load.rate, "first": first, **more}
        options = [f"--{option.replace('_', '-')}={value}" for option, value in given.items()] + ([] if load.patient else ["--impatient"])
        super().__init__(directory / "log", "tests.faults.node", str(directory), ",".join(map(str, ports)), *options, **environment)
        self.name = name
        self.produced = Produced(directory)

    async def begin(self) -> None:
        await self.start("ready\n")

    async def makes(self, rows: int, within_s: float = LIMIT_S) -> None:
        """Until it has produced so many more."""
        goal = self.produced.least() + rows
        await until(lambda: self.produced.least() >= goal, within_s)

    async def end(self) -> int:
        self.signal(signal.SIGTERM)
        return await self.ended()


@dataclass(frozen=True)
class Account:
    """What became of the rows of all nodes of one name."""

    least: int
    """Rows that surely were produced."""
    most: int
    """And those that a node was about to produce when it was killed."""
    stored: int
    once: int
    """Stored, counted by their numbers."""
    dead: int
    lost: dict[str, int]
    """By reason."""

    @property
    def accounted(self) -> int:
        return self.stored + self.dead + sum(self.lost.values())

    @property
    def balanced(self) -> bool:
        return self.least <= self.accounted <= self.most and self.stored == self.once


async def account(ask: Ask, *nodes: Node) -> Account:
    """As it is now. One of `AWAY` when nobody answers."""
    where = f"WHERE node = '{nodes[0].name}'"
    parts = [f"SELECT 'stored', toString(count()), toString(uniqExact({NUMBER})) FROM infrasight.{kind} {where}" for kind in SHARES]
    parts += [f"SELECT 'dead', toString(sum(rows)), '0' FROM infrasight.dead_letter {where} AND event_kind != 'loss'"]
    stored = once = dead = 0
    for what, rows, different in await ask(" UNION ALL ".join(parts)):
        if what == "stored":
            stored, once = stored + int(rows), once + int(different)
        else:
            dead += int(rows)
    told = await ask(f"SELECT toString(reason), toString(sum(count)) FROM infrasight.loss {where} AND probe NOT IN ('loss', '') GROUP BY reason")
    lost = {reason: int(rows) for reason, rows in told}
    return Account(sum(node.produced.least() for node in nodes), sum(node.produced.most() for node in nodes), stored, once, dead, lost)


async def recovered(ask: Ask, *nodes: Node, within_s: float) -> float:
    """Seconds from now until all that has been produced by now is accounted for."""
    goal, began_s = sum(node.produced.least() for node in nodes), time.monotonic()
    found: Account | None = None
    while found is None or found.accounted < goal:
        assert time.monotonic() - began_s < within_s, f"{found}, of {goal}"
        with contextlib.suppress(*AWAY):
            found = await account(ask, *nodes)
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s


async def settled(ask: Ask, *nodes: Node, within_s: float) -> Account:
    """Have the nodes produce no more, and end them once everything is accounted for: the account, which balances."""
    for node in nodes:
        node.signal(signal.SIGUSR1)
    began_s, found = time.monotonic(), None
    while found is None or not found.balanced:
        assert time.monotonic() - began_s < within_s, f"{found}"
        await asyncio.sleep(0.1)
        with contextlib.suppress(*AWAY):
            found = await account(ask, *nodes)
    for node in nodes:
        assert await node.end() == 0, node.log.read_text()[-3000:]
    final = await account(ask, *nodes)
    assert final.balanced, f"{final}"
    return final


def report(fault: str, load: Load, found: Account, back_s: float | str) -> None:
    """A line of the table in docs/RELIABILITY.md."""
    lost = ", ".join(f"{rows:,} `{reason}`" for reason, rows in found.lost.items()) or "0"
    produced = f"{found.least:,}" if found.least == found.most else f"{found.least:,} to {found.most:,}"
    back = back_s if isinstance(back_s, str) else f"{back_s:.1f} s"
    cells = [fault, f"{load.rate:,.0f}", produced, f"{found.stored:,}", f"{found.dead:,}", lost, f"{found.stored - found.once:,}", back]
    log.info("| %s |", " | ".join(cells))


@contextlib.asynccontextmanager
async def running(*processes: Server | Node) -> AsyncIterator[None]:
    """Begun, and killed in the end."""
    async with contextlib.AsyncExitStack() as stack:
        for process in processes:
            await stack.enter_async_context(process)
            await process.begin()
        yield
