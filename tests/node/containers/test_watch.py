"""The watch: what the API server of Kubernetes tells of pods, beside what runtimes tell of containers, and what becomes of that when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infrasight.actors import Mailbox
from infrasight.node.containers import table
from infrasight.node.containers import watch as module
from infrasight.node.containers.cgroups import Cgroups
from infrasight.node.containers.containment import Container
from infrasight.node.containers.inquirer import Inquirer
from infrasight.node.containers.table import Containers
from infrasight.node.flow import Batch
from infrasight.runtimes import Facts, Key, Place
from infrasight.runtimes.kubernetes import Kubernetes
from infrasight.wire.tls import Credentials
from tests.ports import free_port
from tests.runtimes import fake as containerds
from tests.runtimes.fake import FakeContainerd, container
from tests.runtimes.fake_kubernetes import FakeKubernetes, Pods, listening, owner, status
from tests.waiting import LIMIT_S, until

NODE = "node-1"
OWNERS = [owner("ReplicaSet", "web-7c5d9f")]


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SOON_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_S", 0.05)


class Scene:
    """An inquirer that runs, and what it told."""

    def __init__(self, inquirer: Inquirer, containers: Containers) -> None:
        self.inquirer, self.containers, self.rows = inquirer, containers, list[dict[str, Any]]()
        assert inquirer.watch is not None
        self.watch = inquirer.watch

    def facts(self, id: str) -> Facts:
        return self.containers.find(Container(id.encode(), b"containerd")) or Facts()

    def told(self) -> list[dict[str, Any]]:
        """All rows so far."""
        for batch in iter(self.inquirer._outbox.get_nowait, None):
            self.rows += batch.columns.to_pylist()
        return self.rows


@asynccontextmanager
async def asking(url: str, *sockets: Path, answer_within_s: float = LIMIT_S) -> AsyncIterator[Scene]:
    """It has to end when it is asked to."""
    containers = Containers()
    api = Kubernetes(url, Credentials(), NODE, answer_within_s)
    places = [Place(f"containerd:{socket}") for socket in sockets]
    inquirer = Inquirer(containers, Cgroups(list), Mailbox[Batch]("batches", limit=1 << 20), places, kubernetes=api, node=NODE)
    running = asyncio.create_task(inquirer.run())
    try:
        yield Scene(inquirer, containers)
    finally:
        inquirer.stop()
        await asyncio.wait_for(running, LIMIT_S)
        assert not [task for task in asyncio.all_tasks() if "inquirer" in task.get_name()]


def of_pod(id: str, uid: str) -> Any:
    """A container of containerd's in a pod."""
    return container(id, io_kubernetes_pod_uid=uid, io_kubernetes_pod_name="web-x", io_kubernetes_pod_namespace="default")


@pytest.mark.parametrize("first", ["the API server", "the runtime"])
async def test_both_tell(tmp_path: Path, first: str) -> None:
    """Whoever is first: whose the pod is and which labels it has by now are the API server's, the rest is the runtime's. What changes is news."""
    api, runtime, socket = FakeKubernetes(), FakeContainerd(), tmp_path / "s"
    about = {"name": "web-x", "uid": "u", "labels": {"app": "web", "pod-template-hash": "7c5d9f"}, "ownerReferences": OWNERS}
    async with listening(api) as url, Pods(url) as pods, containerds.listening(runtime, socket), asking(url, socket) as scene:
        await until(lambda: scene.watch.api.listening and scene.inquirer.connected[str(socket)])
        if first == "the runtime":
            runtime.make(of_pod("c", "u"))
            await until(lambda: scene.facts("c").pod_uid == b"u")
        api._put(("default", "web-x"), {"metadata": about, "spec": {"nodeName": NODE}})
        await until(lambda: len(scene.containers.pods) == 1)
        if first == "the API server":
            runtime.make(of_pod("c", "u"))
        await until(lambda: scene.facts("c").workload != b"")
        facts = scene.facts("c")
        assert (facts.workload, facts.pod_name, facts.pod_labels) == (b"Deployment/web", b"web-x", (b"app=web", b"pod-template-hash=7c5d9f"))
        assert facts.image == b"img:1"
        await pods.label("web-x", {"app": "shop"})
        await until(lambda: b"app=shop" in scene.facts("c").all_labels)
        runtime.make(of_pod("c", "u"))
        runtime.make(of_pod("other", "another"))
        await until(lambda: scene.facts("other").pod_uid == b"another")
        assert b"app=shop" in scene.facts("c").all_labels, "what the runtime tells again is as old as the pod"
        await until(lambda: any(row["container_id"] == b"other" for row in scene.told()))
        rows = [(row["workload"], b"app=shop" in row["container_labels"]) for row in scene.told() if row["container_id"] == b"c"]
    before = [(b"", False)] if first == "the runtime" else []
    assert rows == [*before, (b"Deployment/web", False), (b"Deployment/web", True)]


async def test_a_container_that_ended_is_not_told_of_again(tmp_path: Path) -> None:
    api, runtime, socket = FakeKubernetes(), FakeContainerd(), tmp_path / "s"
    async with listening(api) as url, Pods(url) as pods, containerds.listening(runtime, socket), asking(url, socket) as scene:
        await until(lambda: scene.watch.api.listening and scene.inquirer.connected[str(socket)])
        runtime.make(of_pod("c", await pods.create("web-x", NODE)))
        await until(lambda: bool(scene.told()))
        runtime.tell("/containers/delete", "c")
        await until(lambda: len(scene.told()) == 2)
        await pods.label("web-x", {"a": "b"})
        await until(lambda: b"a=b" in (scene.containers.pods.find(scene.facts("c").pod_uid, b"") or Facts()).pod_labels)
        assert [row["state"] for row in scene.told()] == [b"learned", b"ended"]


@pytest.mark.parametrize("how", ["deleted", "while nobody listened"])
async def test_a_pod_that_is_no_more(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """It is remembered for a while."""
    api = FakeKubernetes()
    async with listening(api) as url, Pods(url) as pods, asking(url) as scene:
        uid = await pods.create("web-x", NODE)
        await until(lambda: len(scene.containers.pods) == 1 and api.watches == 1)
        if how == "deleted":
            await pods.delete("web-x")
        else:
            del api.pods["default", "web-x"]
            api.say({"type": "ERROR", "object": status(410, "Expired", "too old")})
        await until(lambda: Key(uid.encode()) in scene.containers.pods._ended)
        assert scene.containers.pods.find(uid.encode(), b"") is not None
        monkeypatch.setattr(table, "ENDED_KEPT_S", 0.0)
        for name in ("a", "b"):
            await pods.create(name, NODE)
            await pods.delete(name)
        await until(lambda: scene.containers.pods.find(uid.encode(), b"") is None)


@pytest.mark.parametrize("wrong", ["refuses", "hangs", "talks rubbish", "is away"])
async def test_one_that_fails_us(tmp_path: Path, wrong: str, caplog: pytest.LogCaptureFixture) -> None:
    """Is told of once and counted each time, and runtimes go on telling; what was known stays. Once it is well again that is told, too."""
    caplog.set_level(logging.WARNING)
    api, runtime, socket = FakeKubernetes(), FakeContainerd(), tmp_path / "s"

    async def fail(request: web.Request) -> web.StreamResponse:
        if wrong == "hangs":
            await asyncio.Event().wait()
        elif wrong == "is away":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({}, status=403) if wrong == "refuses" else web.Response(body=b"\xff\x1b[31m")

    more = {"answer_within_s": 1.0} if wrong == "hangs" else {}
    async with containerds.listening(runtime, socket), listening(api) as url, Pods(url) as pods, asking(url, socket, **more) as scene:
        await until(lambda: scene.watch.api.listening and scene.inquirer.connected[str(socket)])
        uid = await pods.create("web-x", NODE, {"app": "web"}, OWNERS)
        await until(lambda: len(scene.containers.pods) == 1)
        api.answers = fail
        api.say(b"rubbish\n")
        await until(lambda: scene.watch.failures >= 3)
        assert not scene.watch.api.listening
        runtime.make(of_pod("c", uid))
        await until(lambda: b"app=web" in scene.facts("c").all_labels)
        api.answers = None
        await pods.label("web-x", {"app": "shop"})
        await until(lambda: b"app=shop" in scene.facts("c").all_labels)
        said = [record.getMessage() for record in caplog.records if "pods" in record.getMessage()]
        well, ill = f"infrasight node: pods are told of by {url}", "infrasight node: pods are not told of: "
        assert [each.startswith(begins) for each, begins in zip(said, (well, ill, well), strict=True)] == [True] * 3
        assert all(each.isprintable() for each in said)


async def test_one_that_was_never_there(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    async with asking(f"http://127.0.0.1:{port}") as scene:
        await until(lambda: scene.watch.failures >= 3)
    (line,) = [record.getMessage() for record in caplog.records if record.name == "infrasight.node"]
    assert line.startswith(f"infrasight node: pods are not told of: cannot talk to http://127.0.0.1:{port}")
