"""The API server of Kubernetes, asked for the pods of one node: once for all, then it tells of changes.

A list and a watch are all there is to it, of metadata alone (`PartialObjectMetadata`), which holds all that is wanted here: what is in a pod's
specification, such as passwords in its environment, is not told to us.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

from infrasight.errors import AccessDenied, CallFailed, Disconnected, Unauthenticated
from infrasight.runtimes.facts import Facts, Key, facts_of_pod
from infrasight.runtimes.http import Answer, Http
from infrasight.runtimes.limits import SYSTEM
from infrasight.runtimes.loose import inside, parsed, several, text, texts, time_ns
from infrasight.runtimes.pods import Pod, owned_by
from infrasight.wire.tls import Credentials

Pods = dict[Key, Facts]
"""All that there are, by uid."""
Change = tuple[Key, Facts | None]
"""A pod that has come, or become another; or with None, is no more."""

PAGE, PAGES_MAX = 500, 32
"""Pods that are asked for at once, and how often there may be more."""
EVENT_BYTES_MAX = 4 << 20
"""Of one event: an object has 1.5 MiB at most where it is stored."""
WATCH_S = 300, 600
"""How long a watch lasts, at least and at most: so that not all nodes come back together."""
_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1"
_GONE = 410
_LATER = 401, 403, 429
"""Refusals that have nothing to do with what was asked."""
_MIRROR = "kubernetes.io/config.mirror"
"""Annotation of the pod that stands for a static one: the uid that the kubelet knows that by, which cgroups and runtimes have."""
_VERSION_BYTES_MAX = 1024


class Kubernetes:
    """One API server, or several behind one address."""

    def __init__(self, url: str, credentials: Credentials, node: str, answer_within_s: float = 30.0) -> None:
        """`node` is what Kubernetes calls the node. The token of `credentials` is only shown over TLS."""
        self.url, self._credentials, self._answer_within_s = url, credentials, answer_within_s
        self._selected = {"fieldSelector": f"spec.nodeName={node}"}
        self._version, self._newest = "", False
        """The state that is known, where one is; and whether the next list has to be of the newest, not of what a cache has."""
        self.listening = False
        """Whether it tells us of changes now."""
        self.lists = self.changes = self.skipped = 0
        """Times that all pods were asked for, changes that were told, and of those such as were too long."""

    async def pods(self) -> AsyncGenerator[Pods | Change, None]:
        """All pods of the node, unless they are known since the last time; then those that come, change and go, until it has told enough for once,
        and is to be asked again. To be left with `aclosing`.

        Disconnected when it is gone, hangs, or is nothing of the kind; Unauthenticated, AccessDenied or CallFailed when it refuses;
        CredentialsUnusable for a file that cannot be used.
        """
        async with self._connected() as http:
            if not self._version:
                async with aclosing(self._list(http)) as listed:
                    async for all_of_them in listed:
                        yield all_of_them
            if self._version:
                async with aclosing(self._watch(http)) as watched:
                    async for told in watched:
                        yield told

    async def count(self) -> int:
        """How many pods the node has, for who wants to know whether it answers. Errors as of `pods`."""
        async with self._connected() as http, aclosing(self._list(http)) as listed:
            return sum([len(all_of_them) async for all_of_them in listed])

    def _connected(self) -> Http:
        return Http.remote(self.url, self._answer_within_s, SYSTEM.answer_bytes)

    async def _list(self, http: Http) -> AsyncGenerator[Pods, None]:
        """All of them, in one; nothing when that takes so long that the server cannot go on with it."""
        self.lists += 1
        pods, page, version = Pods(), "", ""
        for _ in range(PAGES_MAX):
            # A list of whatever is in its cache costs the server least. After it has forgotten what we know, that could be the same again.
            where = {"continue": page} if page else {} if self._newest else {"resourceVersion": "0"}
            async with self._ask(http, "List", where | {"limit": str(PAGE)}, within_s=self._answer_within_s) as answer:
                if answer.status == _GONE:
                    self._newest = True
                    return
                self._check(answer)
                told = await answer.json()
            version, page = self._version_of(told), text(inside(told, "metadata"), "continue")
            pods.update(filter(None, map(_pod, several(told.get("items")))))
            if not page:
                break
        else:
            raise Disconnected(f"{self.url} tells of more than {PAGE * PAGES_MAX} pods of this node")
        yield pods
        self._version, self._newest = version, False

    async def _watch(self, http: Http) -> AsyncGenerator[Change, None]:
        """What has changed since `_version`."""
        lasts_s = random.randint(*WATCH_S)
        wanted = {"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": self._version, "timeoutSeconds": str(lasts_s)}
        try:
            async with self._ask(http, "", wanted, within_s=lasts_s + self._answer_within_s) as answer:
                if answer.status == _GONE:
                    self._forget()
                    return
                self._check(answer)
                self.listening = True
                async with aclosing(answer.lines(EVENT_BYTES_MAX)) as lines:
                    async for line in lines:
                        self.changes += 1
                        if not line:
                            self.skipped += 1
                            continue
                        event = parsed(line)
                        what, about = text(event, "type"), inside(event, "object")
                        if what == "ERROR":
                            self._failed(about)
                            return
                        version, told = self._version_of(about), _pod(about)
                        if told is not None and what in ("ADDED", "MODIFIED"):
                            yield told
                        elif told is not None and what == "DELETED":
                            yield told[0], None
                        self._version = version  # of a BOOKMARK that is all
        finally:
            self.listening = False

    def _failed(self, status: Mapping[str, Any]) -> None:
        """The watch ends, as it is told."""
        self._forget()
        if status.get("code") != _GONE:
            raise CallFailed(f"{self.url} ends the watch of pods")

    def _forget(self) -> None:
        """The server does not remember the state that we know: all has to be told again."""
        self._version, self._newest = "", True

    def _version_of(self, told: Any) -> str:
        """Disconnected, and all has to be told again, when it has none."""
        version = text(inside(told, "metadata"), "resourceVersion")
        if not 0 < len(version) <= _VERSION_BYTES_MAX:
            self._forget()
            raise Disconnected(f"{self.url} does not talk as the API server of Kubernetes")
        return version

    def _ask(self, http: Http, kind: str, params: Mapping[str, str], *, within_s: float) -> AbstractAsyncContextManager[Answer]:
        tls: ssl.SSLContext | None = None
        # What is sent compressed is work for the server.
        headers = {"Accept": _METADATA.format(kind), "Accept-Encoding": "identity", "User-Agent": "infrasight-node"}
        if self._credentials.encrypts:
            tls = self._credentials.context()
            tls.set_alpn_protocols(["http/1.1"])
            headers |= self._credentials.headers()
        return http.ask("/api/v1/pods", {**self._selected, **params}, headers, within_s=within_s, begin_within_s=self._answer_within_s, tls=tls)

    def _check(self, answer: Answer) -> None:
        """In our words: the server's may have in them what was sent."""
        if answer.status == 401:
            raise Unauthenticated(f"{self.url} does not accept the token in {self._credentials.token_file}")
        if answer.status == 403:
            raise AccessDenied(f"{self.url} does not let us list and watch pods: docs/CONTAINERS.md has the role that is needed")
        if 400 <= answer.status < 500 and answer.status not in _LATER:
            self._forget()
        if answer.status != 200:
            raise CallFailed(f"{self.url}: {answer.status} for {answer.path}")


def _pod(told: Any) -> tuple[Key, Facts] | None:
    """A pod by its uid."""
    who = inside(told, "metadata")
    labels, mirrored = texts(inside(who, "labels")), text(inside(who, "annotations"), _MIRROR)
    uid = mirrored or text(who, "uid")
    if not uid:
        return None
    controllers = [each for each in several(who.get("ownerReferences")) if inside(each).get("controller") is True]
    kind, name = (text(controllers[0], part) if controllers else "" for part in ("kind", "name"))
    workload = owned_by(kind, name, labels, time_ns(text(who, "creationTimestamp"))) if kind and name else ""
    facts = facts_of_pod(Pod(text(who, "name"), text(who, "namespace"), uid, labels, workload))
    return Key(facts.pod_uid), facts
