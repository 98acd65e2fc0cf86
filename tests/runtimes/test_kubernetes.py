"""Pods by the API server of Kubernetes: what a real one is held to as well (that of `INFRASIGHT_TEST_KUBERNETES`), and what one made by hand does
besides."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from infrasight.errors import AccessDenied, CallFailed, CredentialsUnusable, Disconnected, Unauthenticated
from infrasight.runtimes import Facts, Key, kubernetes
from infrasight.runtimes.kubernetes import Change, Kubernetes
from infrasight.runtimes.kubernetes import Pods as All
from infrasight.wire.tls import Credentials
from tests.runtimes.fake_kubernetes import FakeKubernetes, Pods, listening, owner, status
from tests.runtimes.hearing import Heard as Hearing
from tests.waiting import LIMIT_S, until
from tests.wire.certificates import fleet

NODE = f"node-{uuid.uuid4().hex[:8]}"
"""Nobody else's, where the server is real."""
NOBODY = Credentials()
_REAL = pytest.param("real", marks=pytest.mark.needs("kubernetes"))


class Heard(Hearing[All | Change]):
    """What is told, round after round, until it fails."""

    def __init__(self, api: Kubernetes) -> None:
        self.api = api
        super().__init__(api.pods)

    async def _listen(self, tells: Callable[[], AsyncGenerator[All | Change, None]]) -> None:
        while True:
            await super()._listen(tells)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def hearing(url: str, credentials: Credentials = NOBODY, within_s: float = LIMIT_S, node: str = NODE) -> AsyncIterator[Heard]:
    heard = Heard(Kubernetes(url, credentials, node, within_s))
    try:
        yield heard
    finally:
        await heard.stop()


@pytest.fixture(params=["fake", _REAL])
async def url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Where one is that lets everybody in."""
    if request.param == "real":
        yield os.environ["INFRASIGHT_TEST_KUBERNETES"]
        return
    async with listening(FakeKubernetes()) as there:
        yield there


@pytest.fixture
async def pods(url: str) -> AsyncIterator[Pods]:
    async with Pods(url) as made:
        yield made


def name() -> str:
    return f"infrasight-test-{uuid.uuid4().hex[:8]}"


def labels(facts: Facts | None) -> tuple[bytes, ...]:
    assert facts is not None
    return facts.pod_labels


async def test_what_is_there_and_what_comes(url: str, pods: Pods) -> None:
    there, later, elsewhere = name(), name(), name()
    uid = await pods.create(there, NODE, {"app": "web"}, [owner("ReplicationController", "old")])
    await pods.create(elsewhere, "another-node")
    async with hearing(url) as told:
        first = Key(uid.encode())
        facts = {"pod_name": there.encode(), "pod_namespace": b"default", "pod_uid": first.id, "workload": b"ReplicationController/old"}
        assert await told.next() == {first: Facts(**facts, pod_labels=(b"app=web",))}  # type: ignore[arg-type]
        second = Key((await pods.create(later, NODE)).encode())
        key, new = await told.next()  # type: ignore[misc]
        assert (key, new.pod_name, new.workload) == (second, later.encode(), b"")
        await pods.label(there, {"app": None, "tier": "front"})
        key, new = await told.next()  # type: ignore[misc]
        assert (key, labels(new)) == (first, (b"tier=front",))
        for each in (there, later, elsewhere):
            await pods.delete(each)
        gone: set[Any] = set()
        while len(gone) < 2:
            change = await told.next()
            gone |= {change[0]} if change[1] is None else set()  # type: ignore[index]
        assert gone == {first, second}


async def test_page_by_page(url: str, pods: Pods, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "PAGE", 2)
    made = {name(): b"" for _ in range(5)}
    for each in made:
        made[each] = (await pods.create(each, NODE)).encode()
    async with hearing(url) as told:
        told.api._newest = True
        everything = await told.next()
        assert isinstance(everything, dict)
        assert {key.id for key in everything} == set(made.values())
    for each in made:
        await pods.delete(each)


async def test_a_state_that_is_long_forgotten(url: str, pods: Pods) -> None:
    """All is told again."""
    there = name()
    uid = await pods.create(there, NODE)
    async with hearing(url) as told:
        told.api._version = "1"
        seen = [await told.next()]
        while not isinstance(seen[-1], dict):
            seen.append(await told.next())
        assert set(seen[-1]) == {Key(uid.encode())}
    await pods.delete(there)


@pytest.mark.parametrize(
    ("owners", "labels", "workload"),
    [
        ([owner("ReplicaSet", "web-7c5d9f")], {"pod-template-hash": "7c5d9f"}, b"Deployment/web"),
        ([owner("ReplicaSet", "d" * 80 + "-7c5d9f")], {"pod-template-hash": "7c5d9f"}, b"Deployment/" + b"d" * 80),
        ([owner("ReplicaSet", "web")], {"pod-template-hash": "7c5d9f"}, b"ReplicaSet/web"),
        ([owner("ReplicaSet", "web-")], {}, b"ReplicaSet/web-"),
        ([owner("Job", f"report-{int(time.time()) // 60 - 3}")], {}, b"CronJob/report"),
        ([owner("Job", "report-20240101")], {}, b"Job/report-20240101"),
        ([owner("StatefulSet", "db", controller=False), owner("Rollout", "shop")], {}, b"Rollout/shop"),
        ([owner("StatefulSet", "db", controller=False)], {"job-name": "a"}, b""),
    ],
)
async def test_what_owns_a_pod(url: str, pods: Pods, owners: list[dict[str, Any]], labels: dict[str, str], workload: bytes) -> None:
    """By what it says itself, whatever its labels say."""
    there = name()
    await pods.create(there, NODE, labels, owners)
    async with hearing(url) as told:
        everything = await told.next()
        assert isinstance(everything, dict)
        assert [facts.workload for facts in everything.values()] == [workload]
    await pods.delete(there)


async def test_a_static_pod_has_the_uid_that_the_kubelet_gave_it(url: str, pods: Pods) -> None:
    there, hashed = name(), uuid.uuid4().hex
    await pods.create(there, NODE, owners=[owner("Node", NODE)], annotations={"kubernetes.io/config.mirror": hashed})
    async with hearing(url) as told:
        everything = await told.next()
        assert isinstance(everything, dict)
        assert [(key.id, facts.pod_uid, facts.workload) for key, facts in everything.items()] == [
            (hashed.encode(), hashed.encode(), f"Node/{NODE}".encode())
        ]
    await pods.delete(there)


async def test_how_little_is_asked() -> None:
    """Of this node only, of metadata only, once; and then for changes since then. Not for what is compressed, which is work."""
    fake = FakeKubernetes()
    async with listening(fake) as url, Pods(url) as made, hearing(url) as told:
        await told.next()
        await until(lambda: told.api.listening)
        await made.create("a", NODE)
        await told.next()
    first, watch = fake.asked
    assert {each["fieldSelector"] for each in (first, watch)} == {f"spec.nodeName={NODE}"}
    assert (first["resourceVersion"], watch["resourceVersion"], watch["allowWatchBookmarks"]) == ("0", "7", "true")
    assert 300 <= int(watch["timeoutSeconds"]) <= 600
    assert {each["Accept-Encoding"] for each in fake.asked} == {"identity"}
    assert all(each["Accept"].startswith("application/json;as=PartialObjectMetadata") for each in fake.asked)
    assert {each["Authorization"] for each in fake.asked} == {""}


async def test_a_watch_that_ends_goes_on_where_it_was() -> None:
    """By the last change, or the last bookmark; nothing is told twice, and no list is asked for."""
    fake = FakeKubernetes()
    async with listening(fake) as url, Pods(url) as made, hearing(url) as told:
        assert await told.next() == {}
        for number in range(3):
            await made.create(f"elsewhere-{number}", "other")
        await until(lambda: fake.watches == 1)
        fake.bookmark()
        fake.compact()
        for number in range(3):
            await made.create(f"pod-{number}", NODE)
            assert (await told.next())[1].pod_name == f"pod-{number}".encode()  # type: ignore[index, union-attr]
            await until(lambda: fake.watches == 1)
            fake.say(None)
            await until(lambda number=number: len(fake.asked) == number + 3)  # type: ignore[misc]
        assert (len(fake.lists), told.api.lists) == (1, 1)
        assert [each["resourceVersion"] for each in fake.asked] == ["0", "7", "11", "12", "13"]


async def test_a_pod_that_comes_to_the_node_later() -> None:
    """It is scheduled: to who watches this node it is new."""
    fake = FakeKubernetes()
    async with listening(fake) as url, Pods(url) as made, hearing(url) as told:
        assert await told.next() == {}
        uid = await made.create("a", "")
        await made._ask("PATCH", "/a", {"spec": {"nodeName": NODE}})
        assert (await told.next())[0] == Key(uid.encode())  # type: ignore[index]


async def test_a_list_that_is_forgotten_in_the_middle() -> None:
    fake, count = FakeKubernetes(), kubernetes.PAGE + 1
    async with listening(fake) as url:
        for number in range(count):
            fake._put(("default", f"p{number}"), {"metadata": {"name": f"p{number}", "uid": f"u{number}"}, "spec": {"nodeName": NODE}})

        async def forget(request: web.Request) -> web.StreamResponse:
            if "continue" in request.query:
                fake.answers = None
                fake.version += 1
                fake.compact()
            return await fake._get(request)

        fake.answers = forget
        api = Kubernetes(url, NOBODY, NODE)
        api._newest = True
        heard = Heard(api)
        everything = await heard.next()
        await heard.stop()
        assert len(everything) == count
        assert [("continue" in query, query.get("resourceVersion")) for query in fake.lists] == [(False, None), (True, None)] * 2


@pytest.mark.parametrize("ends", ["event", "status"])
async def test_what_is_forgotten_is_asked_for_anew_and_not_of_a_cache(ends: str) -> None:
    fake, gone = FakeKubernetes(), status(410, "Gone", "too old")
    async with listening(fake) as url, hearing(url) as told:
        await told.next()
        await until(lambda: fake.watches == 1)
        if ends == "event":
            fake.say({"type": "ERROR", "object": gone})
        else:
            fake.answers = once(fake, web.json_response(gone, status=410))
            fake.say(None)
        assert await told.next() == {}
    assert [query.get("resourceVersion") for query in fake.lists] == ["0", None]


def once(fake: FakeKubernetes, answer: web.StreamResponse) -> Any:
    async def answered(_: web.Request) -> web.StreamResponse:
        fake.answers = None
        return answer

    return answered


async def test_other_errors_of_a_watch() -> None:
    """In our words; then all is told again."""
    fake = FakeKubernetes()
    async with listening(fake) as url, hearing(url) as told:
        await told.next()
        await until(lambda: fake.watches == 1)
        fake.say({"type": "ERROR", "object": status(500, "InternalError", "etcd \x1b[31m is gone")})
        with pytest.raises(CallFailed, match="ends the watch of pods") as error:
            await told.next()
        assert "etcd" not in str(error.value)
        assert told.api._version == ""


@pytest.mark.parametrize("code", [400, 429, 500, 503])
async def test_refusals(code: int) -> None:
    """A server that is too busy is not asked for all again; one that does not understand is."""
    fake = FakeKubernetes()
    async with listening(fake) as url, hearing(url) as told:
        await told.next()
        await until(lambda: fake.watches == 1)
        fake.answers = once(fake, web.json_response(status(code, "Reason", "why"), status=code))
        fake.say(None)
        with pytest.raises(CallFailed, match=f"{code} for /api/v1/pods"):
            await told.next()
        assert (told.api._version == "") is (code == 400)


async def test_tokens(tmp_path: Path) -> None:
    """Read anew each time, shown over TLS only, and never in an error."""
    ca, file, fake = fleet(), tmp_path / "token", FakeKubernetes({"first-secret": True, "second-secret": True, "powerless-secret": False})
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*ca.server(name="kubernetes"))
    credentials = Credentials(ca.ca, token_file=file)
    async with listening(fake, tls) as url, Pods(url) as _:
        api = Kubernetes(url, credentials, NODE)

        async def asked(token: str) -> int:
            file.write_text(token + "\n")
            return await api.count()

        assert await asked("first-secret") == await asked("second-secret") == 0
        assert [each["Authorization"] for each in fake.asked] == ["Bearer first-secret", "Bearer second-secret"]
        for token, kind, why in (
            ("unknown-secret", Unauthenticated, f"does not accept the token in {file}"),
            ("powerless-secret", AccessDenied, "does not let us list and watch pods"),
            ("two secrets", CredentialsUnusable, "is not one token"),
        ):
            with pytest.raises(kind, match=why) as error:
                await asked(token)
            assert "secret" not in str(error.value).replace(str(file), "")

        async def echoes(request: web.Request) -> web.StreamResponse:
            return web.json_response(status(500, request.headers["Authorization"], request.headers["Authorization"]), status=500)

        fake.answers = echoes
        with pytest.raises(CallFailed) as error:
            await asked("first-secret")
        assert "secret" not in str(error.value)
        file.unlink()
        with pytest.raises(CredentialsUnusable, match="the token cannot be read"):
            await api.count()


async def test_whom_we_do_not_know_gets_no_token(tmp_path: Path) -> None:
    """One with a certificate of another authority, or for another host."""
    ours, theirs = fleet(), type(fleet())()
    (tmp_path / "token").write_text("secret")
    for certificate in (theirs.server(name="theirs"), ours.server("elsewhere.example", name="elsewhere")):
        fake, tls = FakeKubernetes(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
        async with listening(fake, tls) as url:
            with pytest.raises(Disconnected, match="the certificate is not accepted"):
                await Kubernetes(url, Credentials(ours.ca, token_file=tmp_path / "token"), NODE).count()
        assert fake.asked == []


async def test_nobody_is_followed_elsewhere() -> None:
    fake, other = FakeKubernetes(), FakeKubernetes()
    async with listening(fake) as url, listening(other) as elsewhere:
        fake.answers = once(fake, web.Response(status=302, headers={"Location": f"{elsewhere}/api/v1/pods"}))
        with pytest.raises(CallFailed, match="302"):
            await Kubernetes(url, NOBODY, NODE).count()
        assert other.asked == []


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"metadata": {"resourceVersion": 7}}', b"[" * 100_000, b'{"metadata": []}'])
async def test_lists_that_are_none(body: bytes) -> None:
    fake = FakeKubernetes()
    async with listening(fake) as url:
        fake.answers = once(fake, web.Response(body=body))
        with pytest.raises(Disconnected) as error:
            await Kubernetes(url, NOBODY, NODE).count()
    assert str(error.value).isprintable()


@pytest.mark.parametrize("line", [b"rubbish\n", b"[]\n", b"{}\n", b'{"type": "ADDED", "object": {"metadata": {"uid": "a"}}}\n', b"[" * 9_999 + b"\n"])
async def test_changes_that_are_none(line: bytes) -> None:
    """They end it, and all is told again."""
    fake = FakeKubernetes()
    async with listening(fake) as url, hearing(url) as told:
        await told.next()
        await until(lambda: fake.watches == 1)
        fake.say(line)
        with pytest.raises(Disconnected, match="does not talk as the API server"):
            await told.next()
        assert (told.api._version, told.api.listening) == ("", False)


@pytest.mark.parametrize(
    "about",
    [
        {"uid": 7},
        {"uid": "u", "labels": ["a"], "ownerReferences": {"a": "b"}, "annotations": 7, "name": [], "namespace": None},
        {"uid": "u", "labels": {"a": 7}, "ownerReferences": [7, {"controller": True, "kind": 7}, {"controller": "yes"}]},
    ],
)
async def test_pods_that_are_strange(about: dict[str, Any]) -> None:
    """What is not as it should be is left out."""
    fake = FakeKubernetes()
    fake.answers = once(fake, web.json_response({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": about}, 7, None]}))
    async with listening(fake) as url, hearing(url) as told:
        assert await told.next() == ({Key(b"u"): Facts(pod_uid=b"u")} if about["uid"] == "u" else {})


async def test_in_pieces_and_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change may come in pieces, or many in one; one that is too long is left out, and counted."""
    monkeypatch.setattr(kubernetes, "EVENT_BYTES_MAX", 1 << 20)
    fake = FakeKubernetes()

    def added(uid: str, version: int, note: str = "") -> bytes:
        about = {"uid": uid, "resourceVersion": str(version), "annotations": {"note": note}}
        return json.dumps({"type": "ADDED", "object": {"metadata": about}}).encode() + b"\n"

    async with listening(fake) as url, hearing(url) as told:
        await told.next()
        await until(lambda: fake.watches == 1)
        whole = added("a", 8)
        for number in range(0, len(whole), 7):
            fake.say(whole[number : number + 7])
        assert (await told.next())[0] == Key(b"a")  # type: ignore[index]
        fake.say(added("b", 9, "x" * (1 << 21)))
        fake.say(added("c", 10) + added("d", 11))
        assert [(await told.next())[0].id for _ in range(2)] == [b"c", b"d"]  # type: ignore[index]
        assert told.api.skipped == 1


async def test_one_that_has_no_end() -> None:
    """Pages without end, and a page without end."""
    fake = FakeKubernetes()

    async def again(_: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "7", "continue": "more"}, "items": []})

    async with listening(fake) as url:
        fake.answers = again
        with pytest.raises(Disconnected, match="more than 16000 pods"):
            await Kubernetes(url, NOBODY, NODE).count()
        fake.answers = once(fake, web.Response(body=b" " * (17 << 20)))
        with pytest.raises(Disconnected, match="more than 16777216 bytes"):
            await Kubernetes(url, NOBODY, NODE).count()


async def test_one_that_hangs() -> None:
    """Before a list, or before a watch begins."""
    fake = FakeKubernetes()

    async def hang(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query and request.query["fieldSelector"].endswith("b"):
            return await fake._get(request)
        await asyncio.Event().wait()
        return web.Response()

    async with listening(fake) as url:
        fake.answers = hang
        for node in ("a", "b"):
            async with hearing(url, within_s=2.0, node=node) as told:
                if node == "b":
                    await told.next()
                with pytest.raises(Disconnected, match="does not answer"):
                    await told.next()


async def test_one_that_breaks_off(tmp_path: Path) -> None:
    """What was told stays known: it goes on from there."""
    fake = FakeKubernetes()
    async with listening(fake) as url, Pods(url) as made:
        api = Kubernetes(url, NOBODY, NODE)
        heard = Heard(api)
        await heard.next()
        await made.create("a", NODE)
        await heard.next()
        port = int(url.rpartition(":")[2])
    with pytest.raises(Disconnected):
        await heard.next()
    assert api._version == "8"
    with pytest.raises(Disconnected, match="cannot talk to"):
        await Kubernetes(url, NOBODY, NODE).count()
    async with listening(fake, port=port), Pods(url) as made:
        heard = Heard(api)
        await made.create("b", NODE)
        _, facts = await heard.next()  # type: ignore[misc]
        assert facts.pod_name == b"b"
        await heard.stop()
    assert len(fake.lists) == 1
