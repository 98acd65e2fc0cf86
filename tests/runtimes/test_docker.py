"""docker and podman, by one made by hand and by a real podman."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infrasight.errors import CallFailed, Disconnected
from infrasight.runtimes import Facts, Key
from infrasight.runtimes.docker import Docker
from infrasight.runtimes.limits import Limits
from tests.e2e.containerd import IMAGE
from tests.e2e.podman import Podman
from tests.runtimes.fake import saying
from tests.runtimes.hearing import Heard, hearing
from tests.waiting import LIMIT_S

A, B, C = (letter * 64 for letter in "abc")
DIGEST = "sha256:" + "5" * 64


def container(id: str, **more: Any) -> dict[str, Any]:
    config = {"Image": "shop/web:1", "Labels": {"team": "a", "odd": 7}}
    told = {"Id": id, "Name": "/web", "Image": "sha256:" + "1" * 64, "Created": "1970-01-01T00:00:07.000009123Z", "Config": config}
    told |= {"State": {"StartedAt": "1970-01-01T00:00:08Z"}}
    return told | {"HostConfig": {"Privileged": False}} | more


class FakeDocker:
    """Answers as it is told to. `answers` are what it says instead, by path; `asked` what it was asked for."""

    def __init__(self, server: str = "Docker/27.0 (linux)") -> None:
        self.server, self.there = server, dict[str, dict[str, Any]]()
        self.answers: dict[str, web.Response] = {}
        self.asked: list[str] = []
        self.events: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.hanging = asyncio.Event()
        self.hanging.set()

    def tell(self, action: str, id: str) -> None:
        self.events.put_nowait(json.dumps({"Type": "container", "Action": action, "Actor": {"ID": id}}).encode() + b"\n")

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        await self.hanging.wait()
        if request.path in self.answers:
            return self.answers[request.path]
        if request.path == "/events":
            return await self._stream(request)
        answers = {f"/containers/{id}/json": told for id, told in self.there.items()}
        answers |= {"/version": {}, "/containers/json": [{"Id": id} for id in self.there]}
        answers["/images/sha256:" + "1" * 64 + "/json"] = {"RepoDigests": [f"shop/web@{DIGEST}"]}
        headers = {"Server": self.server}
        if request.path not in answers:
            return web.json_response({"message": "no such thing"}, status=404, headers=headers)
        return web.json_response(answers[request.path], headers=headers)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while (line := await self.events.get()) is not None:
            await response.write(line)
        return response


@asynccontextmanager
async def listening(fake: FakeDocker, socket: Path) -> AsyncIterator[FakeDocker]:
    app = web.Application()
    app.router.add_get("/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield fake
    finally:
        fake.events.put_nowait(None)
        await runner.cleanup()


def heard(socket: Path, within_s: float = LIMIT_S) -> AbstractAsyncContextManager[Heard]:
    return hearing(Docker(socket, within_s))


def facts(**more: object) -> Facts:
    told = {"name": b"web", "image": b"shop/web:1", "image_digest": DIGEST.encode(), "labels": (b"team=a",), "created_ns": 7_000_009_000}
    told["started_ns"] = 8_000_000_000
    return Facts(**(told | more))


async def test_what_is_there_and_what_comes(tmp_path: Path) -> None:
    fake, socket = FakeDocker(), tmp_path / "s"
    fake.there[A] = container(A)
    async with listening(fake, socket), heard(socket) as told:
        assert await told.many(2) == [(Key(A.encode()), facts()), None]
        fake.there[B] = container(B, Name="/till", HostConfig={"Privileged": True})
        fake.tell("create", "gone")
        for action, id in (("create", B), ("destroy", A), ("remove", B)):
            fake.tell(action, id)
        assert await told.many(3) == [(Key(B.encode()), facts(name=b"till", privileged=True)), (Key(A.encode()), None), (Key(B.encode()), None)]
    assert sum(path.startswith("/images/") for path in fake.asked) == 1


@pytest.mark.parametrize(("server", "runtime"), [("Docker/27.0 (linux)", b"docker"), ("Libpod/4.3.1 (linux)", b"podman"), ("", b"docker")])
async def test_whose_containers_it_tells_of(tmp_path: Path, server: str, runtime: bytes) -> None:
    async with listening(FakeDocker(server), tmp_path / "s"):
        asked = Docker(tmp_path / "s")
        assert asked.tells == frozenset()
        await asked.answer()
        assert asked.tells == {runtime}
        await asked.close()


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"Config": None, "HostConfig": [], "Created": 7, "Image": ""}, facts(image=b"", image_digest=b"", labels=(), created_ns=0)),
        ({"Image": "sha256:" + "2" * 64}, facts(image_digest=b"")),
        ({"Name": {}, "Created": "soon"}, facts(name=b"", created_ns=0)),
        ({"HostConfig": {"Privileged": "true"}}, facts()),
    ],
)
async def test_what_is_not_as_it_should_be_is_left_out(tmp_path: Path, more: dict[str, Any], expected: Facts) -> None:
    fake = FakeDocker()
    fake.there[A] = container(A, **more)
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        assert await told.next() == (Key(A.encode()), expected)


@pytest.mark.parametrize("answer", [b"", b"\xff" * 100_000, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"SSH-2.0-OpenSSH\r\n"])
async def test_somebody_else_listens_there(tmp_path: Path, answer: bytes) -> None:
    async with saying(tmp_path / "s", answer), heard(tmp_path / "s", 0.5) as told:
        with pytest.raises(Disconnected) as error:
            await told.many(2)
    assert str(error.value).isprintable()


async def test_nobody_listens_there_or_it_hangs(tmp_path: Path) -> None:
    async with heard(tmp_path / "s") as told:
        with pytest.raises(Disconnected, match="cannot talk to"):
            await told.next()
    fake = FakeDocker()
    fake.hanging.clear()
    async with listening(fake, tmp_path / "t"), heard(tmp_path / "t", 0.2) as told:
        with pytest.raises(Disconnected, match="does not answer"):
            await told.next()
        fake.hanging.set()


ODD = b"null\n", b"[]\n", b"[" * 500_000 + b"\n", b'{"Action": "create", "Actor": {"ID": "../../version"}}\n'


@pytest.mark.parametrize("line", [b"rubbish\n", b"x" * (3 << 20), *ODD])
async def test_events_that_are_none(tmp_path: Path, line: bytes) -> None:
    """They end the connection, or are of no container; nothing is asked for that is no id."""
    fake = FakeDocker()
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        assert await told.next() is None
        fake.events.put_nowait(line)
        with pytest.raises(Disconnected):
            await told.next()
    assert set(fake.asked) == {"/version", "/events", "/containers/json"}


@pytest.mark.parametrize("there", [None, 5, {}, True])
async def test_a_list_that_is_none(tmp_path: Path, there: object) -> None:
    fake = FakeDocker()
    fake.answers["/containers/json"] = web.json_response(there)
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        assert await told.next() is None


async def test_it_refuses_or_says_too_much(tmp_path: Path) -> None:
    fake = FakeDocker()
    fake.answers["/events"] = web.json_response({}, status=500)
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        with pytest.raises(CallFailed, match="500 for /events"):
            await told.next()
    fake = FakeDocker()
    fake.answers["/containers/json"] = web.json_response(["x" * 2000])
    async with listening(fake, tmp_path / "t"), hearing(Docker(tmp_path / "t", limits=Limits(1000))) as told:
        with pytest.raises(Disconnected, match="more than 1000 bytes"):
            await told.next()


@pytest.mark.needs("root", "podman", "busybox")
async def test_a_real_podman() -> None:
    with Podman() as real:
        async with heard(real.socket) as told:
            assert await told.next() is None
            await asyncio.to_thread(real.run, "one", "true", "--label", "team=a", "--privileged")
            (id, one), end = await told.many(2)  # type: ignore[misc]
    assert end == (id, None)
    assert (one.name, one.image, one.privileged) == (b"one", IMAGE.encode(), True)
    assert one.image_digest.startswith(b"sha256:")
    assert b"team=a" in one.labels
    assert abs(one.created_ns / 1e9 - time.time()) < 120
