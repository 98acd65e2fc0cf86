"""The API server of Kubernetes made by hand, as far as pods go, and who makes pods there: through the API, so that a real one can take its place."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import aiohttp
from aiohttp import web

Object = dict[str, Any]
_SPEC = {"containers": [{"name": "main", "image": "shop/web:1", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}
"""Of a pod; what has to stay where it is."""
_EXPIRED = "too old resource version"


def status(code: int, reason: str, message: str) -> Object:
    """How it says no."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code}


def owner(kind: str, name: str, *, controller: bool = True) -> Object:
    return {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": str(uuid.uuid4()), "controller": controller}


class FakeKubernetes:
    """`asked` has the lists and watches that it was asked for, each as its query with the headers; `tokens` who may come, and whether they may list
    pods; `answers` what it does instead of all that."""

    def __init__(self, tokens: Mapping[str, bool] | None = None) -> None:
        self.tokens = tokens
        self.asked: list[dict[str, str]] = []
        self.pods: dict[tuple[str, str], Object] = {}
        self.version = self._compacted = 7
        self._history: list[tuple[int, Object | None, Object | None]] = []
        self._watches: set[asyncio.Queue[Object | bytes | None]] = set()
        self.answers: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    @property
    def watches(self) -> int:
        """How many go on."""
        return len(self._watches)

    @property
    def lists(self) -> list[dict[str, str]]:
        return [query for query in self.asked if "watch" not in query]

    def compact(self) -> None:
        """Forget what was before the present."""
        self._compacted = self.version

    def bookmark(self) -> None:
        """Have those who watch know which version it is, as it does now and then."""
        self.say({"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": {"resourceVersion": str(self.version)}}})

    def say(self, event: Object | bytes | None) -> None:
        """To all who watch, as it is; with None it ends the watches."""
        for queue in self._watches:
            queue.put_nowait(event)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._let_in])
        app.router.add_get("/api/v1/pods", self._get)
        app.router.add_post("/api/v1/namespaces/{namespace}/pods", self._create)
        app.router.add_patch("/api/v1/namespaces/{namespace}/pods/{name}", self._patch)
        app.router.add_delete("/api/v1/namespaces/{namespace}/pods/{name}", self._delete)
        return app

    @web.middleware
    async def _let_in(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        if request.method != "GET":
            return await handler(request)
        self.asked.append({**request.query, **{name: request.headers.get(name, "") for name in ("Accept", "Authorization", "Accept-Encoding")}})
        if self.answers:
            return await self.answers(request)
        if self.tokens is not None:
            may = self.tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
            if may is None:
                return web.json_response(status(401, "Unauthorized", "Unauthorized"), status=401)
            if not may:
                return web.json_response(status(403, "Forbidden", 'pods is forbidden: User "x" cannot list resource "pods"'), status=403)
        return await handler(request)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        return await (self._watch(request) if request.query.get("watch") in ("1", "true") else self._list(request))

    async def _list(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        if "continue" in query and "resourceVersion" in query:
            return web.json_response(status(400, "BadRequest", "specifying resource version is not allowed when using continue"), status=400)
        at, _, after = query.get("continue", "").partition("/")
        if at and int(at) < self._compacted:
            return web.json_response(status(410, "Expired", "The provided continue parameter is too old"), status=410)
        those = sorted((key, pod) for key, pod in self.pods.items() if _selected(pod, query) and "/".join(key) > after)
        limit = 0 if query.get("resourceVersion") == "0" else int(query.get("limit", "0"))  # what the cache has is told whole
        more = limit and len(those) > limit
        about = {"resourceVersion": at or str(self.version)}
        if more:
            those = those[:limit]
            about |= {"continue": f"{about['resourceVersion']}/{'/'.join(those[-1][0])}", "remainingItemCount": 1}
        partial = "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" in request.headers["Accept"]
        kind = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"} if partial else {"kind": "PodList", "apiVersion": "v1"}
        return web.json_response({**kind, "metadata": about, "items": [_shown(pod, partial) for _, pod in those]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        query, partial = request.query, "as=PartialObjectMetadata;g=meta.k8s.io;v=v1" in request.headers["Accept"]
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        queue: asyncio.Queue[Object | bytes | None] = asyncio.Queue()
        since = int(query.get("resourceVersion") or 0)
        if 0 < since < self._compacted:
            queue.put_nowait({"type": "ERROR", "object": status(410, "Expired", f"{_EXPIRED}: {since} ({self._compacted})")})
            queue.put_nowait(None)
        for version, old, new in self._history:
            if version > since:
                queue.put_nowait(_event(version, old, new))
        self._watches.add(queue)
        try:
            await response.prepare(request)
            async with asyncio.timeout(int(query.get("timeoutSeconds", "60"))):
                while (event := await queue.get()) is not None:
                    if isinstance(event, dict):
                        event = _told(event, query, partial)
                    if event:
                        await response.write(event)
        except TimeoutError:
            pass
        finally:
            self._watches.discard(queue)
        return response

    async def _create(self, request: web.Request) -> web.StreamResponse:
        pod = await request.json()
        namespace, name = request.match_info["namespace"], pod["metadata"]["name"]
        if (namespace, name) in self.pods:
            return web.json_response(status(409, "AlreadyExists", f'pods "{name}" already exists'), status=409)
        made = {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        return web.json_response(self._put((namespace, name), pod | {"metadata": pod["metadata"] | made}), status=201)

    async def _patch(self, request: web.Request) -> web.StreamResponse:
        """A merge patch (RFC 7396)."""
        key = request.match_info["namespace"], request.match_info["name"]
        assert request.content_type == "application/merge-patch+json"
        return web.json_response(self._put(key, _merged(self.pods[key], await request.json())))

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        pod = self._put((request.match_info["namespace"], request.match_info["name"]), None)
        return web.json_response(pod)

    def _put(self, key: tuple[str, str], pod: Object | None) -> Object:
        self.version += 1
        old = self.pods.pop(key, None)
        if pod is not None:
            pod = self.pods[key] = pod | {"metadata": pod["metadata"] | {"resourceVersion": str(self.version)}}
        self._history.append((self.version, old, pod))
        self.say(_event(self.version, old, pod))
        return pod or old or {}


def _event(version: int, old: Object | None, new: Object | None) -> Object:
    """Not as it is told: what that is depends on who watches."""
    return {"version": version, "old": old, "new": new}


def _told(event: Object, query: Mapping[str, str], partial: bool) -> bytes:
    if "version" in event:
        was, now = (each is not None and _selected(each, query) for each in (event["old"], event["new"]))
        what = {(True, True): "MODIFIED", (False, True): "ADDED", (True, False): "DELETED"}.get((was, now))
        if what is None:
            return b""
        pod = event["new"] or event["old"]
        pod = pod | {"metadata": pod["metadata"] | {"resourceVersion": str(event["version"])}}
        event = {"type": what, "object": _shown(pod, partial)}
    return json.dumps(event).encode() + b"\n"


def _selected(pod: Object, query: Mapping[str, str]) -> bool:
    field, _, value = query.get("fieldSelector", "").partition("=")
    assert field in ("", "spec.nodeName")
    return not field or pod["spec"].get("nodeName", "") == value


def _shown(pod: Object, partial: bool) -> Object:
    kind = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"} if partial else {"kind": "Pod", "apiVersion": "v1"}
    return {**kind, "metadata": pod["metadata"]} if partial else {**pod, **kind}


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


class Pods:
    """Makes pods through the API at an address. A context manager."""

    def __init__(self, url: str, namespace: str = "default") -> None:
        self._base = f"{url}/api/v1/namespaces/{namespace}/pods"

    async def __aenter__(self) -> Pods:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def create(
        self,
        name: str,
        node: str,
        labels: Mapping[str, str] | None = None,
        owners: Sequence[Object] = (),
        annotations: Mapping[str, str] | None = None,
    ) -> str:
        """A pod on a node; its uid."""
        about = {"name": name, "labels": dict(labels or {}), "ownerReferences": list(owners), "annotations": dict(annotations or {})}
        made = await self._ask("POST", "", {"metadata": about, "spec": {**_SPEC, "nodeName": node}})
        return str(made["metadata"]["uid"])

    async def label(self, name: str, labels: Mapping[str, str | None]) -> None:
        """Change labels of a pod; to None, take them away."""
        await self._ask("PATCH", f"/{name}", {"metadata": {"labels": labels}})

    async def delete(self, name: str) -> None:
        """At once."""
        await self._ask("DELETE", f"/{name}", {"gracePeriodSeconds": 0})

    async def _ask(self, method: str, path: str, body: Object) -> Any:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with self._session.request(method, self._base + path, data=json.dumps(body), headers={"Content-Type": kind}) as answer:
            assert answer.status in (200, 201), await answer.text()
            return await answer.json()


@asynccontextmanager
async def listening(fake: FakeKubernetes, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
    """The address."""
    runner = web.AppRunner(fake.app(), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        fake.say(None)
        await runner.cleanup()


@contextmanager
def served(fake: FakeKubernetes, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """As `listening`, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    there = listening(fake, tls)
    try:
        yield asyncio.run_coroutine_threadsafe(there.__aenter__(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(there.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
