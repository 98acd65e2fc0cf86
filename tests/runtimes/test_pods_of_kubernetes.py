"""What is told of pods, whoever tells: the same is expected of a cri-o made by hand, with events and without, and of a real containerd, by CRI and
by its own API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infrasight.runtimes import Facts, Key, Runtime, Told, Unknown
from infrasight.runtimes import cri as module
from infrasight.runtimes.containerd import Containerd
from infrasight.runtimes.cri import Cri
from tests.e2e.containerd import IMAGE
from tests.e2e.containerd import Containerd as Real
from tests.e2e.cri import Driver
from tests.runtimes.fake import listening
from tests.runtimes.fake_cri import FakeCri
from tests.runtimes.hearing import Heard, hearing
from tests.waiting import LIMIT_S

_REAL = pytest.mark.needs("root", "containerd", "busybox")
WHO = ("fake with events", "fake", pytest.param("containerd by cri", marks=_REAL), pytest.param("containerd", marks=_REAL))
NODE = "node-1"


@pytest.fixture(scope="module")
def real() -> Iterator[Real]:
    with Real(cri=True) as running:
        yield running


class Scene:
    """A runtime that is driven, and listened to."""

    def __init__(self, driver: Driver, runtime: Runtime, heard: Heard) -> None:
        self.driver, self.runtime, self._heard = driver, runtime, heard

    async def of(self, id: str) -> Facts | None:
        """What it tells of a container next; as the kernel tells of it, it is sought."""
        self.runtime.seek(id.encode())
        while True:
            told: Told | None = await self._heard.next()
            if told is not None and told[0].id == id.encode() and not isinstance(told[1], Unknown):
                return told[1]

    async def until_all_is_told(self) -> dict[bytes, Facts | None]:
        """What was there."""
        found = {}
        while (told := await self._heard.next()) is not None:
            found[told[0].id] = told[1]
        return found


@pytest.fixture(params=WHO)
async def who(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Path, type[Any]]]:
    """A socket, and who is to speak there."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.5)
    if "containerd" in request.param:
        yield request.getfixturevalue("real").socket, Cri if "cri" in request.param else Containerd
        return
    async with listening(FakeCri(events="events" in request.param), tmp_path / "s"):
        yield tmp_path / "s", Cri


@asynccontextmanager
async def scene(who: tuple[Path, type[Any]], driver: Driver) -> AsyncIterator[Scene]:
    runtime = who[1](who[0], LIMIT_S, node=NODE)
    async with hearing(runtime) as heard:
        yield Scene(driver, runtime, heard)


DEPLOYMENT = {"app": "web", "pod-template-hash": "7c5d9f"}


async def test_a_container_of_a_pod(who: tuple[Path, type[Any]]) -> None:
    with Driver(who[0]) as driver:
        async with scene(who, driver) as told:
            await told.until_all_is_told()
            began_ns = time.time_ns() if who[1] is Containerd else 0
            async with driver.pod("web-7c5d9f-x2b4z", DEPLOYMENT | {"io.kubernetes.container.name": "the pod's"}) as pod:
                id = await driver.create(pod, "till", "true")
                facts = await told.of(id)
                assert facts is not None
                assert (facts.name, facts.image, facts.privileged) == (b"till", IMAGE.encode(), False)
                assert (facts.pod_name, facts.pod_namespace, facts.pod_uid) == (b"web-7c5d9f-x2b4z", b"shop", pod.uid.encode())
                assert facts.workload == b"Deployment/web"
                assert {b"app=web", b"pod-template-hash=7c5d9f", b"io.kubernetes.container.name=till"} <= set(facts.all_labels)
                later = set(facts.in_pod(Facts(pod_labels=(b"app=new",))).all_labels)
                assert {b"app=new", b"io.kubernetes.container.name=till", b"io.kubernetes.pod.name=web-7c5d9f-x2b4z"} <= later
                assert not later & {b"app=web", b"pod-template-hash=7c5d9f"}, "what the API server says is in place of what was so at first"
                assert began_ns < facts.created_ns
                await driver.remove(id)
                assert await told.of(id) is None


async def test_what_stands_for_a_pod(who: tuple[Path, type[Any]]) -> None:
    with Driver(who[0]) as driver:
        async with scene(who, driver) as told:
            await told.until_all_is_told()
            async with driver.pod("db-0", {"statefulset.kubernetes.io/pod-name": "db-0"}) as pod:
                facts = await told.of(pod.id)
                assert facts is not None
                assert (facts.name, facts.pod_name, facts.workload) == (b"POD", b"db-0", b"StatefulSet/db")
                assert facts.pod_uid == pod.uid.encode()
                assert b"statefulset.kubernetes.io/pod-name=db-0" in facts.all_labels
                later = facts.in_pod(Facts(pod_labels=(b"app=new",))).all_labels
                assert [each for each in later if not each.startswith(b"io.")] == [b"app=new"]
                assert b"io.kubernetes.pod.name=db-0" in later


async def test_those_that_were_there_before(who: tuple[Path, type[Any]]) -> None:
    """A static pod, by the annotation that the kubelet gave it."""
    with Driver(who[0]) as driver:
        async with driver.pod(f"etcd-{NODE}", annotations={"kubernetes.io/config.source": "file"}, privileged=True) as pod:
            ids = [await driver.create(pod, name, "true", privileged=name == "b") for name in ("a", "b")]
            async with scene(who, driver) as told:
                there = await told.until_all_is_told()
                facts = [there[id.encode()] for id in (*ids, pod.id)]
                assert [each and (each.name, each.privileged, each.workload) for each in facts] == [
                    (b"a", False, b"Node/node-1"),
                    (b"b", True, b"Node/node-1"),
                    (b"POD", False, b"Node/node-1"),
                ]


async def test_the_beginning_of_an_id_is_none(who: tuple[Path, type[Any]]) -> None:
    """Though the runtime takes it for one."""
    with Driver(who[0]) as driver:
        async with scene(who, driver) as told:
            await told.until_all_is_told()
            async with driver.pod("web") as pod:
                told.runtime.seek(pod.id[:12].encode())
                told.runtime.seek(b"\xff")
                facts = await told.of(pod.id)
                assert facts is not None


async def test_many_at_once(who: tuple[Path, type[Any]]) -> None:
    with Driver(who[0]) as driver:
        async with scene(who, driver) as told:
            await told.until_all_is_told()
            async with driver.pod("web") as pod:
                ids = await asyncio.gather(*(driver.create(pod, f"c{number}", "true") for number in range(6)))
                for id in ids:
                    told.runtime.seek(id.encode())
                seen = dict[bytes, Facts | None]()
                while not {id.encode() for id in ids} <= set(seen):
                    news = await told._heard.next()
                    if news is not None:
                        seen[news[0].id] = news[1]
                names = [facts.name for id in ids if (facts := seen[id.encode()]) is not None]
                assert names == [f"c{number}".encode() for number in range(6)]


def test_a_key_has_a_namespace_or_none() -> None:
    assert Key(b"a") == Key(b"a", b"") != Key(b"a", b"k8s.io")
