"""The Container Runtime Interface by one made by hand: when it is asked, how often, and all that can be wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from infrasight.errors import CallFailed, Disconnected
from infrasight.runtimes import Key, Unknown
from infrasight.runtimes import cri as module
from infrasight.runtimes.cri import SOUGHT_MAX, TRIES, Cri
from infrasight.wire.cri import ContainerMetadata, ContainerStatus, GotContainer, What
from tests.e2e.cri import Driver
from tests.runtimes.fake import listening, saying
from tests.runtimes.fake_cri import DIGEST, FakeCri
from tests.runtimes.hearing import Heard, hearing
from tests.waiting import LIMIT_S, until


def heard(socket: Path, within_s: float = LIMIT_S) -> AbstractAsyncContextManager[Heard]:
    return hearing(Cri(socket, within_s))


@pytest.fixture(autouse=True)
def never_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 1_000.0)
    monkeypatch.setattr(module, "AGAIN_S", 0.001)


@asynccontextmanager
async def running(fake: FakeCri, socket: Path) -> AsyncIterator[tuple[Cri, Heard, Driver]]:
    """One that is listened to, and has told all that was there, which is nothing."""
    async with listening(fake, socket):
        runtime = Cri(socket)
        async with hearing(runtime) as told:
            with Driver(socket) as driver:
                assert await told.next() is None
                yield runtime, told, driver


@pytest.mark.parametrize("events", [True, False], ids=["events", "no events"])
async def test_each_container_is_asked_about_once(tmp_path: Path, events: bool) -> None:
    fake = FakeCri(events=events)
    async with running(fake, tmp_path / "s") as (runtime, told, driver):
        pod = await driver.run_pod("web")
        ids = [pod.id, *[await driver.create(pod, f"c{number}", "true") for number in range(20)]]
        for id in ids if not events else ():
            runtime.seek(id.encode())
            runtime.seek(id.encode())
        found = dict(each for each in await told.many(len(ids)) if each is not None)
        assert {key.id.decode() for key in found} == set(ids)
        assert {facts.image_digest for key, facts in found.items() if facts and key.id.decode() != pod.id} == {DIGEST.encode()}
    asked = Counter(fake.asked)
    assert {asked[f"ContainerStatus {id}"] for id in ids} == {1}
    assert sum(count for what, count in asked.items() if what.startswith("PodSandboxStatus")) == 1
    assert asked["ImageStatus"] == 2, "an image's digest is asked for once"


async def test_one_that_is_not_there_yet(tmp_path: Path) -> None:
    """The kernel tells of a cgroup before cri-o tells of the container."""
    fake = FakeCri()
    async with running(fake, tmp_path / "s") as (runtime, told, driver):
        pod = await driver.run_pod("web")
        id = await driver.create(pod, "till", "true")
        container = fake.containers.pop(id)
        runtime.seek(id.encode())
        assert await told.next() == (Key(id.encode()), Unknown.YET)
        await until(lambda: fake.asked.count(f"ContainerStatus {id}") >= 3)
        fake.containers[id] = container
        news = await told.next()
    assert news is not None
    assert news[0] == Key(id.encode())


async def test_one_that_never_comes_is_given_up(tmp_path: Path) -> None:
    fake = FakeCri()
    async with running(fake, tmp_path / "s") as (runtime, told, driver):
        runtime.seek(b"nobody")
        assert await told.next() == (Key(b"nobody"), Unknown.YET)
        await until(lambda: fake.asked.count("ContainerStatus nobody") > TRIES)
        pod = await driver.run_pod("web")
        runtime.seek(pod.id.encode())
        news = await told.next()
        assert news is not None
        assert news[0] == Key(pod.id.encode())
    assert fake.asked.count("ContainerStatus nobody") == TRIES + 1


async def test_what_is_sought_is_bounded(tmp_path: Path) -> None:
    async with listening(FakeCri(), tmp_path / "s"):
        runtime = Cri(tmp_path / "s")
        for number in range(2 * SOUGHT_MAX):
            runtime.seek(b"%d" % number)
        assert len(runtime._sought) == SOUGHT_MAX
        await runtime.close()


async def test_what_nobody_sought_is_found_at_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is not there any more."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    async with running(FakeCri(), tmp_path / "s") as (_, told, driver):
        pod = await driver.run_pod("web")
        news = await told.next()
        assert news is not None
        assert news[0] == Key(pod.id.encode())
        await driver.remove_pod(pod)
        assert await told.next() == (Key(pod.id.encode()), None)


async def test_events_that_end(tmp_path: Path) -> None:
    """Then it is asked, as without."""
    fake = FakeCri(events=True)
    async with running(fake, tmp_path / "s") as (runtime, told, driver):
        pod = await driver.run_pod("web")
        await told.next()
        fake.end_streams()
        fake.listeners.clear()
        await until(lambda: not runtime._told_by_events)
        id = await driver.create(pod, "till", "true")
        runtime.seek(id.encode())
        news = await told.next()
    assert news is not None
    assert news[0] == Key(id.encode())


async def test_events_of_what_is_gone_or_known(tmp_path: Path) -> None:
    fake = FakeCri(events=True)
    async with running(fake, tmp_path / "s") as (_, told, driver):
        fake.tell("gone", What.CREATED)
        pod = await driver.run_pod("web")
        for what in (What.STARTED, What.STOPPED, What.DELETED):
            fake.tell(pod.id, what)
        assert [each and each[1] is not None for each in await told.many(2)] == [True, False]


async def test_containerds_events_are_left_to_the_kubelet(tmp_path: Path) -> None:
    """Its version 1.7 gives each to one listener only."""
    fake = FakeCri("containerd", events=True)
    async with running(fake, tmp_path / "s") as (runtime, _, _):
        assert runtime.tells == {b"containerd", b""}
        assert not fake.listeners


async def test_odd_answers(tmp_path: Path) -> None:
    """A container of which next to nothing is said."""
    fake = FakeCri()
    async with running(fake, tmp_path / "s") as (runtime, told, driver):
        pod = await driver.run_pod("web")
        id = await driver.create(pod, "till", "true")
        status = fake.containers[id].status
        assert status is not None
        status.metadata = status.image = None
        status.image_ref, status.created_at, status.labels = "repo@sha256:77", -5, []
        fake.containers[id].info[0].value = '{"sandboxID": 7, "runtimeSpec": ["x"]}'
        fake.containers["empty"] = GotContainer()
        runtime.seek(b"empty")
        assert await told.next() == (Key(b"empty"), Unknown.YET)
        runtime.seek(id.encode())
        news = await told.next()
    assert news is not None
    assert news[1] is not None
    facts = news[1]
    assert (facts.name, facts.image, facts.image_digest, facts.created_ns, facts.labels) == (id.encode(), b"", b"sha256:77", 0, ())


async def test_many_that_were_there(tmp_path: Path) -> None:
    fake = FakeCri()
    for number in range(300):
        id = f"{number:064}"
        fake.containers[id] = GotContainer(status=ContainerStatus(id=id, metadata=ContainerMetadata(name=f"c{number}")))
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        seen = set()
        while (news := await told.next()) is not None:
            assert news[1] is not None
            seen.add(news[1].name)
    assert seen == {f"c{number}".encode() for number in range(300)}


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100_000], ids=["nothing", "http", "rubbish"])
async def test_somebody_else_listens_there(tmp_path: Path, answer: bytes) -> None:
    async with saying(tmp_path / "s", answer), heard(tmp_path / "s", 1.0) as told:
        with pytest.raises(Disconnected) as error:
            await told.next()
    assert str(error.value).isprintable()


async def test_it_hangs(tmp_path: Path) -> None:
    fake = FakeCri()
    fake.hanging = True
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s", 0.2) as told:
        with pytest.raises(Disconnected, match="does not answer"):
            await told.next()


async def test_it_is_gone_while_it_is_listened_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    async with heard(tmp_path / "s") as told:
        with pytest.raises(Disconnected, match="no such file or directory"):
            await told.next()
    runtime = Cri(tmp_path / "t")
    async with hearing(runtime) as told:
        async with listening(FakeCri(), tmp_path / "t"):
            pass
        with pytest.raises(Disconnected):
            await told.next()


async def test_it_refuses(tmp_path: Path) -> None:
    class Refusing(FakeCri):
        def __mapping__(self):  # type: ignore[no-untyped-def]
            return {route: handler for route, handler in super().__mapping__().items() if "ListContainers" not in route}

    async with listening(Refusing(), tmp_path / "s"), heard(tmp_path / "s") as told:
        with pytest.raises(CallFailed):
            await told.next()
