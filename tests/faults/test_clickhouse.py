"""A ClickHouse that is slow, stands still, dies, refuses, or is cut off in the middle of a block; and two servers of ours before one."""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest

from infrasight.schema import KINDS
from infrasight.store.addresses import parse
from infrasight.store.connection import Connection
from infrasight.store.session import EngineError
from tests.faults.link import Link
from tests.faults.world import Load, Node, Server, account, recovered, report, running, settled
from tests.store.clickhouse import ClickHouse, _ddl, older_tables

log = logging.getLogger(__name__)
pytestmark = pytest.mark.needs("clickhouse")


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    server = ClickHouse(tmp_path_factory.mktemp("clickhouse") / "server")
    server.start()
    yield server
    server.kill()


@dataclass
class Scene:
    """ClickHouse, the way to it, and who is told to do something to it."""

    clickhouse: ClickHouse
    link: Link
    admin: Connection
    load: Load

    async def execute(self, *statements: str) -> None:
        for statement in statements:
            await asyncio.to_thread(self.admin.execute, statement)

    async def ask(self, sql: str) -> list[list[str]]:
        return await asyncio.to_thread(self.admin.rows, sql)

    def users(self, old: str, new: str) -> None:
        """Change its users, which it reads again by itself."""
        file = self.clickhouse.directory / "users.xml"
        file.write_text(file.read_text().replace(old, new))

    def writer_is_served(self) -> bool:
        """Whether the user that our server is can read something, over a connection of its own."""
        with closing(Connection(parse(self.clickhouse.url()))) as connection:
            try:
                return bool(connection.rows("SELECT name FROM system.functions"))
            except EngineError:
                return False


Fault = AbstractAsyncContextManager[None]


@asynccontextmanager
async def slow(scene: Scene) -> AsyncIterator[None]:
    scene.link.delay_s = 10.0 if scene.load.patient else 0.4
    yield
    scene.link.delay_s = 0.0


@asynccontextmanager
async def frozen(scene: Scene) -> AsyncIterator[None]:
    scene.clickhouse.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scene.clickhouse.signal(signal.SIGCONT)


@asynccontextmanager
async def killed(scene: Scene) -> AsyncIterator[None]:
    scene.clickhouse.kill()
    try:
        yield
    finally:
        await asyncio.to_thread(scene.clickhouse.start)


@asynccontextmanager
async def too_many_parts(scene: Scene) -> AsyncIterator[None]:
    await scene.execute("SYSTEM STOP MERGES")
    yield
    await scene.execute("SYSTEM START MERGES", "OPTIMIZE TABLE infrasight.open")


@asynccontextmanager
async def out_of_memory(scene: Scene) -> AsyncIterator[None]:
    known = "<profile>default</profile><quota>default</quota></writer>"
    poor = known.replace("default</profile>", "poor</profile>")
    scene.users("</default></profiles>", "</default><poor><max_memory_usage>1000</max_memory_usage></poor></profiles>")
    scene.users(known, poor)
    try:
        while await asyncio.to_thread(scene.writer_is_served):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.1)
        scene.link.cut()
        yield
    finally:
        scene.users(poor, known)
        while not await asyncio.to_thread(scene.writer_is_served):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.1)


@asynccontextmanager
async def refusing_the_login(scene: Scene) -> AsyncIterator[None]:
    password = scene.clickhouse.directory / "password"
    right = password.read_text()
    password.write_text("another")
    scene.link.cut()
    try:
        yield
    finally:
        password.write_text(right)


@asynccontextmanager
async def without_a_table(scene: Scene) -> AsyncIterator[None]:
    await scene.execute("RENAME TABLE infrasight.execve TO infrasight.away")
    yield
    await scene.execute("RENAME TABLE infrasight.away TO infrasight.execve")


@asynccontextmanager
async def without_a_column(scene: Scene) -> AsyncIterator[None]:
    await scene.execute("ALTER TABLE infrasight.open DROP COLUMN flags")
    yield
    await scene.execute("ALTER TABLE infrasight.open ADD COLUMN flags UInt32")


@asynccontextmanager
async def with_another_type(scene: Scene) -> AsyncIterator[None]:
    await scene.execute("ALTER TABLE infrasight.open MODIFY COLUMN flags String")
    yield
    await scene.execute("ALTER TABLE infrasight.open MODIFY COLUMN flags UInt32")


@asynccontextmanager
async def cut_inside_blocks(scene: Scene) -> AsyncIterator[None]:
    dice = random.Random(3)

    async def cut() -> None:
        while True:
            scene.link.cut_after = dice.randrange(2_000, 40_000)
            while scene.link.cut_after:  # noqa: ASYNC110 - the link is no actor
                await asyncio.sleep(0.02)

    cutting = asyncio.create_task(cut())
    yield
    cutting.cancel()
    scene.link.cut_after = 0
    assert scene.link.cuts


FAULTS: dict[str, tuple[Callable[[Scene], Fault], str]] = {
    "slow": (slow, ""),
    "frozen": (frozen, "no answer"),
    "killed": (killed, "127.0.0.1:"),
    "too many parts": (too_many_parts, "Too many parts"),
    "out of memory": (out_of_memory, "Memory limit"),
    "refusing the login": (refusing_the_login, "password"),
    "without a table": (without_a_table, "doesn't exist"),
    "without a column": (without_a_column, "flags"),
    "with a column of another type": (with_another_type, "flags is String"),
    "cut off inside blocks": (cut_inside_blocks, ""),
}
"""By name, with what the server says of it."""


@asynccontextmanager
async def scene(clickhouse: ClickHouse, load: Load, parts: int = 100_000) -> AsyncIterator[Scene]:
    """With empty tables, of which `open` takes so many parts that are not merged."""
    admin = Connection(parse(f"clickhouse://default@127.0.0.1:{clickhouse.native}/"))
    try:
        async with Link(clickhouse.native) as link:
            made = Scene(clickhouse, link, admin, load)
            settings = f"SETTINGS index_granularity = 8192, parts_to_delay_insert = {parts}, parts_to_throw_insert = {parts + 1}"
            await made.execute("DROP DATABASE IF EXISTS infrasight", "CREATE DATABASE infrasight")
            await made.execute(f"{_ddl(KINDS['open'])} {settings}")
            await asyncio.to_thread(older_tables, admin)
            yield made
    finally:
        await asyncio.to_thread(admin.close)


def server_of(made: Scene, directory: Path, name: str = "server", *options: str) -> Server:
    url = made.clickhouse.url().replace(f":{made.clickhouse.native}/", f":{made.link.port}/", 1)
    given = ["--older", *([] if made.load.patient else ["--impatient", "--store-patience-s=1"]), *options]
    return Server(directory, *given, store=url, name=name)


async def problem(server: Server, says: str, within_s: float) -> None:
    """Until the server says that its store fails so."""
    said, end_s = "", time.monotonic() + within_s
    while says not in said:
        assert time.monotonic() < end_s, said
        await asyncio.sleep(0.1)
        said = (await server.state()).store_problem


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_clickhouse_that_fails(fault: str, load: Load, clickhouse: ClickHouse, tmp_path: Path) -> None:
    begin, says = FAULTS[fault]
    async with scene(clickhouse, load, *([6] if begin is too_many_parts else [])) as made:
        server = server_of(made, tmp_path)
        node = Node(tmp_path / "node", load, server.port)
        async with running(server, node):
            await node.makes(int(load.rate / 2))
            began_s = time.monotonic()
            async with begin(made):
                await problem(server, says, load.within_s)
                await node.makes(int(load.rate * load.fault_s))
            lasted_s = time.monotonic() - began_s
            back_s = await recovered(made.ask, node, within_s=load.within_s)
            found = await settled(made.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    report(f"ClickHouse {fault}, {lasted_s:.0f} s", load, found, back_s)


async def test_two_servers_that_are_restarted_in_turn(load: Load, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """A rolling restart: of one store, one after the other, gently or not."""
    async with scene(clickhouse, load) as made:
        servers = [server_of(made, tmp_path, name) for name in ("one", "other")]
        node = Node(tmp_path / "node", load, *(server.port for server in servers))
        async with running(*servers, node):
            for turn in range(2 * load.times):
                await node.makes(int(load.rate / 3))
                server = servers[turn % 2]
                server.signal(signal.SIGKILL if turn % 3 == 2 else signal.SIGTERM)
                await server.ended()
                await server.begin()
            back_s = await recovered(made.ask, node, within_s=load.within_s)
            found = await settled(made.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    report(f"two servers of one store, restarted in turn, {2 * load.times} times", load, found, back_s)


CUTS = 30


@pytest.mark.parametrize("still", [False, True], ids=["", "and ClickHouse stands still"])
async def test_two_servers_of_which_a_node_is_cut_off_in_turn(still: bool, load: Load, clickhouse: ClickHouse, tmp_path: Path) -> None:
    """With what the one may be storing it goes to the other, who cannot see that yet. Neither server ends, so what is under way there goes on."""
    dice = random.Random(still)
    async with scene(clickhouse, load) as made, AsyncExitStack() as stack:
        servers = [server_of(made, tmp_path, name) for name in ("one", "other")]
        links = [await stack.enter_async_context(Link(server.port)) for server in servers]
        node = Node(tmp_path / "node", load, *(link.port for link in links))
        twice = 0
        async with running(*servers, node):
            await node.makes(int(load.rate / 2))
            for turn in range(CUTS):
                stands_still = still and turn % 5 == 0
                async with frozen(made) if stands_still else nullcontext():
                    links[turn % 2].cut()
                    await node.makes(int(load.rate * (1.5 if stands_still else dice.uniform(0.05, 0.4))))
                found = await account(made.ask, node)
                twice = max(twice, found.stored - found.once)
            back_s = await recovered(made.ask, node, within_s=load.within_s)
            found = await settled(made.ask, node, within_s=load.within_s)
    assert not found.lost
    assert not found.dead
    log.info("%d rows were there twice for a while", twice)
    report(f"cut off from two servers in turn, {CUTS} times{', ClickHouse frozen' if still else ''}", load, found, back_s)
