"""The inquirer: runtimes that come and go, and such as fail it."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infrasight.actors import Mailbox
from infrasight.node.containers import inquirer as module
from infrasight.node.containers import table
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.containment import NOWHERE, Container
from infrasight.node.containers.hierarchy import Hierarchy
from infrasight.node.containers.inquirer import Inquirer
from infrasight.node.containers.table import Containers
from infrasight.node.flow import Batch
from infrasight.runtimes import Place
from infrasight.schema.events.process import CGROUP
from infrasight.schema.parts import TOLD
from tests.e2e.cri import Driver
from tests.node.records import cgroup, together
from tests.runtimes.fake import FakeContainerd, container, listening, saying
from tests.runtimes.fake_cri import FakeCri
from tests.waiting import LIMIT_S, until

USER = "/user.slice/user-1000.slice/user@1000.service"
A, B = Container(b"a", b"containerd"), Container(b"b", b"containerd")


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "SOON_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_S", 0.05)
    monkeypatch.setattr(module, "ANSWER_EVERY_S", 0.05)


def outbox() -> Mailbox[Batch]:
    return Mailbox("batches", limit=1 << 20)


def sent(inquirer: Inquirer) -> list[dict[str, Any]]:
    """The rows since the last time."""
    return [row for batch in iter(inquirer._outbox.get_nowait, None) for row in batch.columns.to_pylist()]


@asynccontextmanager
async def asking(*sockets: Path, answer_within_s: float = LIMIT_S) -> AsyncIterator[tuple[Inquirer, Containers]]:
    """One that runs; it has to end when it is asked to."""
    containers = Containers()
    places = [Place(f"containerd:{socket}") for socket in sockets]
    inquirer = Inquirer(containers, Cgroups(list), outbox(), places, node="n", answer_within_s=answer_within_s)
    running = asyncio.create_task(inquirer.run())
    try:
        yield inquirer, containers
    finally:
        inquirer.stop()
        await asyncio.wait_for(running, LIMIT_S)
        assert not [task for task in asyncio.all_tasks() if "inquirer" in task.get_name()]


async def test_a_runtime_that_comes_and_goes_and_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it told stays known; what ended is told at the next listening by being absent."""
    caplog.set_level(logging.WARNING)
    fake, socket = FakeContainerd(), tmp_path / "s"
    async with asking(socket, tmp_path / "never") as (inquirer, containers):
        await asyncio.sleep(0.05)
        assert (inquirer.failures[str(socket)], containers.awaited(A)) == (0, False), "there is nobody, which is no failure"
        async with listening(fake, socket):
            await until(lambda: inquirer.connected[str(socket)])
            assert containers.awaited(A)
            fake.make(container("a"))
            await until(lambda: containers.find(A))
            fake.end_streams()
            await until(lambda: inquirer.failures[str(socket)] == 1)
            assert containers.find(A) is not None
            fake.spaces["default"]["b"] = container("b")
            await until(lambda: containers.find(B))
        assert inquirer.connected[str(tmp_path / "never")] is False
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"infrasight node: containers are told of by {socket}"
    assert said[1] == f"infrasight node: containers are not told of: the containerd at {socket} tells no more"


@pytest.mark.parametrize("answer", [b"", b"\xff" * 1_000, None], ids=["nothing", "rubbish", "hanging"])
async def test_one_that_fails_again_and_again(tmp_path: Path, answer: bytes | None, caplog: pytest.LogCaptureFixture) -> None:
    """It is told of once, counted each time, and nobody waits for it."""
    async with saying(tmp_path / "s", answer), asking(tmp_path / "s", answer_within_s=0.3) as (inquirer, containers):
        await until(lambda: inquirer.failures[str(tmp_path / "s")] >= 3)
        assert not containers.awaited(A)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "infrasight.node"]
    assert line.isprintable()
    assert str(tmp_path / "s") in line


async def test_one_that_is_not_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A mistake of ours in what it says costs what it says: others are still listened to."""

    async def fail(*_: object) -> None:
        raise TypeError("a mistake")

    fake, other = FakeContainerd(), FakeContainerd()
    async with listening(fake, tmp_path / "s"), listening(other, tmp_path / "t"), asking(tmp_path / "s", tmp_path / "t") as (inquirer, containers):
        await until(lambda: inquirer.connected[str(tmp_path / "t")])
        monkeypatch.setattr(fake, "spaces", {"default": {"a": container("a")}})
        learn = inquirer._learn
        monkeypatch.setattr(inquirer, "_learn", lambda *told: fail() if told[1].id == b"a" else learn(*told))
        fake.end_streams()
        await until(lambda: inquirer.failures[str(tmp_path / "s")] >= 3)
        other.make(container("b"))
        await until(lambda: containers.find(B))
    assert sum("was not understood" in record.getMessage() for record in caplog.records) == 1


async def test_one_that_begins_to_hang(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    async with listening(fake, socket), asking(socket, answer_within_s=0.3) as (inquirer, containers):
        await until(lambda: inquirer.connected[str(socket)])
        fake.hanging = True
        await until(lambda: not inquirer.connected[str(socket)])
        assert not containers.awaited(A)
        fake.hanging = False
        await until(lambda: inquirer.connected[str(socket)])


async def test_what_ended_while_the_runtime_was_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not there when it is back, and so forgotten after a while."""
    monkeypatch.setattr(table, "ENDED_KEPT_S", 0.0)
    fake, socket = FakeContainerd(), tmp_path / "s"
    fake.spaces["default"] |= {"a": container("a"), "b": container("b")}
    async with asking(socket) as (inquirer, containers), listening(fake, socket):
        await until(lambda: inquirer.connected[str(socket)])
        assert len(containers) == 2
        del fake.spaces["default"]["a"]
        fake.end_streams()
        await until(lambda: containers.find(A) is None)
        assert (containers.find(B) is not None, len(containers)) == (True, 1)


@pytest.mark.needs("root")
async def test_a_users_own_runtime(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is believed in what is below the user's slice, and forgotten once it is gone; whatever it does is said once."""
    fake, socket = FakeContainerd(), tmp_path / "s"
    fake.spaces["default"] = {"a": container("a"), "b": container("b")}
    fake.spaces["default"]["a"].spec.value = json.dumps({"linux": {"cgroupsPath": "/shop/a"}}).encode()
    fake.spaces["default"]["b"].spec.value = json.dumps({"linux": {"cgroupsPath": f"{USER}/shop/b"}}).encode()
    cgroups, containers = Cgroups(list), Containers()
    inquirer = Inquirer(containers, cgroups, outbox(), [], users=lambda: [Place(f"containerd:{socket}", 1000)] if socket.exists() else [])
    running = asyncio.create_task(inquirer.run())
    theirs = Container(b"a", b"containerd", space=b"default", realm=b"1000")
    for _ in range(2):
        async with listening(fake, socket):
            os.chown(socket, 1000, 1000)
            await until(lambda: inquirer.connected.get(str(socket), False))
            assert containers.find(theirs) is not None
            assert containers.find(A) is None
            assert sent(inquirer) == []
            assert [containers.awaited(Container(b"c", b"containerd", realm=realm)) for realm in (b"1000", b"")] == [True, False]
            socket.unlink()
            fake.end_streams()
            await until(lambda: str(socket) not in inquirer.connected)
            assert len(containers) == 0
    made = {7: b"/shop/a", 8: f"{USER}/shop/b".encode()}
    cgroups.apply(together(*(cgroup(CGROUP, id, path, parent=1) for id, path in made.items())))
    assert [cgroups.find(id).id for id in made] == [b"", b"b"], "what is not below their slice is not theirs"
    inquirer.stop()
    await asyncio.wait_for(running, LIMIT_S)
    said = [record.getMessage() for record in caplog.records if record.name == "infrasight.node"]
    assert len(said) <= 4


@pytest.mark.needs("root")
async def test_somebody_elses_socket_in_a_users_directory_is_not_asked(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    async with listening(fake, socket):
        inquirer = Inquirer(Containers(), Cgroups(list), outbox(), [], users=lambda: [Place(f"containerd:{socket}", 1000)])
        running = asyncio.create_task(inquirer.run())
        await until(lambda: inquirer.connected)  # it was found,
        await until(lambda: not inquirer.connected)  # and is given up
        assert fake.asked == []
        inquirer.stop()
        await asyncio.wait_for(running, LIMIT_S)


async def test_who_is_sought(tmp_path: Path) -> None:
    """Of a runtime that tells of such containers, by its connection."""
    fake = FakeCri()
    async with listening(fake, tmp_path / "s"):
        containers = Containers()
        inquirer = Inquirer(containers, Cgroups(list), outbox(), [Place(f"cri:{tmp_path / 's'}")], node="node-1")
        running = asyncio.create_task(inquirer.run())
        await until(lambda: inquirer.connected[str(tmp_path / "s")])
        with Driver(tmp_path / "s") as driver:
            pod = await driver.run_pod("etcd", annotations={"kubernetes.io/config.source": "file"})
            id = (await driver.create(pod, "till", "true")).encode()
        await containers.wait_for([Container(id, b"containerd"), Container(b"x", b"cri-o", realm=b"1000")])
        assert containers.find(Container(id)) is None
        await containers.wait_for([Container(id, b"cri-o")], 20)
        facts = containers.find(Container(id, b"cri-o"))
        assert facts is not None
        assert facts.workload == b"Node/node-1"
        inquirer.stop()
        await asyncio.wait_for(running, LIMIT_S)


async def test_it_can_be_stopped_before_it_runs() -> None:
    inquirer = Inquirer(Containers(), Cgroups(list), outbox(), [], node="n")
    inquirer.stop()
    await asyncio.wait_for(inquirer.run(), LIMIT_S)


async def test_a_cgroup_whose_name_does_not_tell(tmp_path: Path) -> None:
    """One that is made later, and one that is there; those inside them too, once they are made."""
    fake, socket, there = FakeContainerd(), tmp_path / "s", tmp_path / "hierarchy/shop/old"
    there.mkdir(parents=True)
    cgroups, containers = Cgroups(lambda: [Hierarchy(tmp_path / "hierarchy")]), Containers()
    cgroups.prime()
    for id, path in (("old", "/shop/old"), ("new", "/shop/new"), ("usual", "/default/usual"), ("odd", "/shop/\0"), ("gone", "/shop/gone")):
        fake.spaces["default"][id] = container(id)
        fake.spaces["default"][id].spec.value = json.dumps({"linux": {"cgroupsPath": path}}).encode()
    async with listening(fake, socket):
        inquirer = Inquirer(containers, cgroups, outbox(), [Place(f"containerd:{socket}")], node="n")
        running = asyncio.create_task(inquirer.run())
        await until(lambda: inquirer.connected[str(socket)])
        inquirer.stop()
        await running
    made = {7: b"/shop/new", 8: b"/shop/new/inside", 10: b"/shop/other"}
    cgroups.apply(together(*(cgroup(CGROUP, id, path, parent=id - 1) for id, path in made.items())))
    found = [cgroups.find(id) for id in (there.stat().st_ino, 7, 8, 10)]
    assert found == [*(Container(id, b"containerd", space=b"default") for id in (b"old", b"new", b"new")), NOWHERE]


async def test_what_is_news_is_sent_on_as_rows(tmp_path: Path) -> None:
    """When a container is made, when it has become another, and when it ends; not when it is told of again."""
    fake, socket = FakeContainerd(), tmp_path / "s"
    fake.spaces["default"]["there"] = container("there")

    def image(id: str) -> bytes:
        facts = containers.find(Container(id.encode(), b"containerd"))
        return facts.image if facts else b""

    async with asking(socket) as (inquirer, containers), listening(fake, socket):
        await until(lambda: inquirer.connected[str(socket)])
        (row,) = sent(inquirer)
        assert (row["node"], row["container_id"], row["container_runtime"], row["state"]) == (b"n", b"there", b"containerd", b"learned")
        assert (row["container_name"], row["image"]) == (b"there", image("there"))
        fake.end_streams()
        await until(lambda: inquirer.failures[str(socket)] == 1)
        await until(lambda: inquirer.connected[str(socket)])
        fake.make(container("new"))
        await until(lambda: bool(image("new")))
        fake.spaces["default"]["new"].image = "another"
        fake.make(fake.spaces["default"]["new"])
        await until(lambda: image("new") == b"another")
        fake.tell("/containers/delete", "new")
        rows: list[dict[str, Any]] = []
        await until(lambda: len(rows) == 3 or bool(rows.extend(sent(inquirer))))
    told = [(row["container_id"], row["image"] == b"another", row["state"]) for row in rows]
    assert told == [(b"new", False, b"learned"), (b"new", True, b"learned"), (b"new", True, b"ended")]
    assert set(TOLD) < rows[0].keys()


async def test_one_that_ended_while_nobody_listened(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    for id in ("stays", "goes"):
        fake.spaces["default"][id] = container(id)
    async with listening(fake, socket), asking(socket) as (inquirer, _):
        await until(lambda: inquirer.connected[str(socket)])
        assert {row["state"] for row in sent(inquirer)} == {b"learned"}
        del fake.spaces["default"]["goes"]
        fake.end_streams()
        await until(lambda: inquirer.failures[str(socket)] == 1)
        rows: list[dict[str, Any]] = []
        await until(lambda: bool(rows) or bool(rows.extend(sent(inquirer))))
    assert [(row["container_id"], row["state"]) for row in rows] == [(b"goes", b"ended")]
