"""containerd, by one made by hand and by a real one: what there is, what comes, and all that can be wrong with it."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from infrasight.errors import CallFailed, Disconnected
from infrasight.runtimes import Facts, Key
from infrasight.runtimes.containerd import Containerd
from infrasight.runtimes.limits import Limits
from tests.e2e.containerd import IMAGE
from tests.e2e.containerd import Containerd as Real
from tests.runtimes.fake import DIGEST, FakeContainerd, container, listening, saying
from tests.runtimes.hearing import Heard, hearing
from tests.waiting import LIMIT_S


def heard(socket: Path, within_s: float = LIMIT_S) -> AbstractAsyncContextManager[Heard]:
    return hearing(Containerd(socket, within_s))


def facts(name: str, **more: object) -> Facts:
    return Facts(**({"name": name.encode(), "image": b"img:1", "image_digest": DIGEST.encode(), "created_ns": 7_000_000_009} | more))


async def test_what_is_there_and_what_comes(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    fake.spaces = {"default": {"a": container("a")}, "k8s.io": {"b": container("b")}, "moby": {"c": container("c")}}
    async with listening(fake, socket), heard(socket) as told:
        assert await told.many(3) == [(Key(b"a", b"default"), facts("a")), (Key(b"b", b"k8s.io"), facts("b")), None]
        fake.make(container("d"), "k8s.io")
        fake.make(container("e"), "moby")
        fake.tell("/containers/delete", "a")
        fake.tell("/tasks/exit", "a")
        assert await told.many(2) == [(Key(b"d", b"k8s.io"), facts("d")), (Key(b"a", b"default"), None)]
    assert sum("img:1" in each for each in fake.asked) == 2, "an image's digest is asked for once in a namespace"


async def test_what_kubernetes_and_others_say(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    names = {"io_kubernetes_pod_name": "web-1", "io_kubernetes_pod_namespace": "shop", "io_kubernetes_container_name": "nginx"}
    fake.spaces = {"default": {"a": container("a", **names), "b": container("b", nerdctl_name="box"), "c": container("c", image="")}}
    fake.spaces["default"]["b"].labels[0].key = "nerdctl/name"
    async with listening(fake, socket), heard(socket) as told:
        a, b, c, _ = await told.many(4)
    labels = (b"io.kubernetes.container.name=nginx", b"io.kubernetes.pod.name=web-1", b"io.kubernetes.pod.namespace=shop")
    assert a == (Key(b"a", b"default"), facts("nginx", pod_name=b"web-1", pod_namespace=b"shop", labels=labels))
    assert b == (Key(b"b", b"default"), facts("box", labels=(b"nerdctl/name=box",)))
    assert c == (Key(b"c", b"default"), facts("c", image=b"", image_digest=b""))


async def test_one_that_is_gone_before_it_was_asked_about(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    async with listening(fake, socket), heard(socket) as told:
        assert await told.next() is None
        fake.tell("/containers/create", "gone")
        fake.make(container("b", image="unknown"))
        assert await told.next() == (Key(b"b", b"default"), facts("b", image=b"unknown", image_digest=b""))


async def test_an_image_that_becomes_another(tmp_path: Path) -> None:
    fake, socket = FakeContainerd(), tmp_path / "s"
    async with listening(fake, socket), heard(socket) as told:
        assert await told.next() is None
        fake.make(container("a"))
        assert await told.next() == (Key(b"a", b"default"), facts("a"))
        fake.images["img:1"] = "sha256:other"
        fake.tell("/images/update", "img:1")
        fake.make(container("b"))
        assert await told.next() == (Key(b"b", b"default"), facts("b", image_digest=b"sha256:other"))


@pytest.mark.parametrize("limits", [Limits(answer_bytes=1_000), Limits(fields=100)], ids=["bytes", "fields"])
async def test_it_says_too_much(tmp_path: Path, limits: Limits) -> None:
    fake = FakeContainerd()
    fake.spaces["default"] = {"a": container("a", **{f"label_{number}": "x" * 10 for number in range(100)})}
    async with listening(fake, tmp_path / "s"), hearing(Containerd(tmp_path / "s", limits=limits)) as told:
        with pytest.raises(Disconnected):
            await told.next()


async def test_it_may_say_so_much_a_second(tmp_path: Path) -> None:
    """Whatever that is about."""
    fake = FakeContainerd()
    async with listening(fake, tmp_path / "s"), hearing(Containerd(tmp_path / "s", limits=Limits(pace_s=0.05))) as told:
        assert await told.next() is None
        began = time.monotonic()
        for _ in range(10):
            fake.tell("/containers/create", "gone")
        fake.make(container("a"))
        assert await told.next() == (Key(b"a", b"default"), facts("a"))
    assert time.monotonic() - began >= 0.5


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 100_000], ids=["nothing", "http", "rubbish"])
async def test_somebody_else_listens_there(tmp_path: Path, answer: bytes) -> None:
    async with saying(tmp_path / "s", answer), heard(tmp_path / "s", 1.0) as told:
        with pytest.raises(Disconnected) as error:
            await told.next()
    assert str(error.value).isprintable()


async def test_nobody_listens_there(tmp_path: Path) -> None:
    async with heard(tmp_path / "s") as told:
        with pytest.raises(Disconnected, match=r"cannot talk to .*/s: no such file or directory"):
            await told.next()


async def test_it_hangs(tmp_path: Path) -> None:
    """From the beginning, and once it is to say what is there."""
    async with saying(tmp_path / "s", None), heard(tmp_path / "s", 0.2) as told:
        with pytest.raises(Disconnected, match="does not answer"):
            await told.next()
    fake = FakeContainerd()
    fake.hanging = True
    async with listening(fake, tmp_path / "t"), heard(tmp_path / "t", 0.2) as told:
        with pytest.raises(Disconnected, match="does not answer"):
            await told.next()


async def test_it_ends_while_it_is_listened_to(tmp_path: Path) -> None:
    fake = FakeContainerd()
    async with listening(fake, tmp_path / "s"), heard(tmp_path / "s") as told:
        assert await told.next() is None
        fake.end_streams()
        with pytest.raises(Disconnected, match="tells no more"):
            await told.next()


async def test_it_hangs_while_it_is_listened_to(tmp_path: Path) -> None:
    """Which nothing tells but asking."""
    fake = FakeContainerd()
    async with listening(fake, tmp_path / "s"):
        runtime = Containerd(tmp_path / "s", 2.0)
        await runtime.answer()
        fake.hanging = True
        with pytest.raises(Disconnected, match="does not answer"):
            await runtime.answer()
        await runtime.close()


async def test_it_refuses(tmp_path: Path) -> None:
    class Refusing(FakeContainerd):
        def __mapping__(self):  # type: ignore[no-untyped-def]
            return {route: handler for route, handler in super().__mapping__().items() if "Namespaces" not in route}

    async with listening(Refusing(), tmp_path / "s"), heard(tmp_path / "s") as told:
        with pytest.raises(CallFailed):
            await told.next()


@pytest.mark.needs("root", "containerd", "busybox")
async def test_a_real_one() -> None:
    with Real() as real:
        async with heard(real.socket) as told:
            assert await told.next() is None
            await asyncio.to_thread(real.run, "one", "true", "--label", "team=a")
            await asyncio.to_thread(real.run, "two", "true", "--privileged")
            one, end, two, _ = await told.many(4)
    assert one is not None and two is not None and end == (Key(b"one", b"default"), None)  # noqa: PT018
    assert one[0].id == b"one"
    assert one[1] is not None and two[1] is not None  # noqa: PT018
    assert (one[1].name, one[1].image, one[1].privileged, two[1].privileged) == (b"one", IMAGE.encode(), False, True)
    assert b"team=a" in one[1].labels
    assert one[1].image_digest == real.digest.encode()
    assert one[1].created_ns < two[1].created_ns
