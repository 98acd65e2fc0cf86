"""What is known of a container."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, NamedTuple, TypeVar

from infrasight.runtimes.pods import NO_POD, Pod, pod_of

T = TypeVar("T")

LABELS_MAX, LABEL_BYTES_MAX = 64, 1024
"""Labels kept of a container, in the order of their names, and bytes of each with its name: annotations of people can be of any size."""
TEXT_BYTES_MAX = 1024
"""Of every other text."""
REMEMBERED_MAX = 1024
"""Images, and pods, that one runtime's are remembered."""
_CONTAINER_NAME = "io.kubernetes.container.name"
"""A label that the kubelet has every container made with (kubernetes/pkg/kubelet/types/labels.go)."""
_NAMES = (_CONTAINER_NAME, "nerdctl/name")
"""Labels that are a container's name."""


class Key(NamedTuple):
    """What tells a container from the others of a machine."""

    id: bytes
    space: bytes = b""
    """The namespace of containerd's, in each of which an id can be once; empty where the runtime has none."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a runtime says of a container; empty or 0 where it says nothing. Text is UTF-8."""

    name: bytes = b""
    image: bytes = b""
    image_digest: bytes = b""
    labels: tuple[bytes, ...] = ()
    """`name=value` each, by name: its own."""
    created_ns: int = 0
    """ns since the epoch, as `started_ns`."""
    started_ns: int = 0
    privileged: bool = False
    pod_name: bytes = b""
    pod_namespace: bytes = b""
    pod_uid: bytes = b""
    workload: bytes = b""
    """What owns the pod, `Deployment/web`."""
    pod_labels: tuple[bytes, ...] = ()
    cgroup: bytes = b""
    """Path of its cgroup below the root, where it says so."""

    @property
    def all_labels(self) -> tuple[bytes, ...]:
        """Its own and those of its pod, as many as are kept; of one that both have its own counts."""
        if not self.pod_labels:
            return self.labels
        named = {word.partition(b"=")[0]: word for word in (*self.pod_labels, *self.labels)}
        return tuple(named[name] for name in sorted(named))[:LABELS_MAX]

    def in_pod(self, pod: Facts) -> Facts:
        """The same, with what is told of its pod (as by `facts_of_pod`) by who knows that better: whose it is, and its labels, which change."""
        name, namespace = self.pod_name or pod.pod_name, self.pod_namespace or pod.pod_namespace
        return replace(self, pod_name=name, pod_namespace=namespace, workload=pod.workload, pod_labels=pod.pod_labels)

    def weight(self) -> int:
        """Bytes of text."""
        pod = self.pod_name, self.pod_namespace, self.workload
        return sum(map(len, (*self.labels, *self.pod_labels, self.name, self.image, self.image_digest, *pod, self.cgroup)))


class Unknown(Enum):
    """What is said of a container in place of what it is."""

    YET = "not known yet, though the kernel knows it: nothing has been started in it"


Told = tuple[Key, Facts | Unknown | None]
"""A container and what it is; None when it is no more."""


def facts_of(
    name: str,
    labels: Mapping[str, str],
    *,
    image: str,
    image_digest: bytes,
    created_ns: int,
    privileged: bool,
    started_ns: int = 0,
    pod: Pod = NO_POD,
    cgroup: bytes = b"",
) -> Facts:
    """With what labels say; `name` is the container's where they say none."""
    if pod is NO_POD:
        pod = replace(pod_of(labels), labels={})
    return replace(
        facts_of_pod(pod),
        name=_text(next((labels[label] for label in _NAMES if label in labels), name)),
        image=_text(image),
        image_digest=image_digest[:TEXT_BYTES_MAX],
        labels=labels_of(labels),
        created_ns=_time(created_ns),
        started_ns=_time(started_ns),
        privileged=privileged,
        cgroup=cgroup,
    )


def facts_of_pod(pod: Pod) -> Facts:
    """What there is to say of every container of a pod."""
    name, namespace, uid, workload = map(_text, (pod.name, pod.namespace, pod.uid, pod.workload))
    return Facts(pod_name=name, pod_namespace=namespace, pod_uid=uid, workload=workload, pod_labels=labels_of(pod.labels))


def _text(told: str) -> bytes:
    return told.encode(errors="replace")[:TEXT_BYTES_MAX]


def _time(told_ns: int) -> int:
    """One that a column can hold."""
    return told_ns if 0 < told_ns < 2**63 else 0


def labels_of(told: Mapping[str, str]) -> tuple[bytes, ...]:
    """Labels as facts have them: bounded, without NUL, by name."""
    words = [f"{name}={value}".encode(errors="replace").replace(b"\0", b"") for name, value in sorted(told.items())]
    return tuple(word[:LABEL_BYTES_MAX] for word in words[:LABELS_MAX])


class Remembered(Generic[T]):
    """What a runtime was asked once, such as what names of images stand for; as long as there is room, those not asked for the longest go first."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._known: OrderedDict[Hashable, T] = OrderedDict()

    async def of(self, key: Hashable, ask: Callable[[], Awaitable[T]]) -> T:
        """What is known by this key. What `ask` raises goes to the caller."""
        if key not in self._known:
            self.put(key, await ask())
        self._known.move_to_end(key)
        return self._known[key]

    def put(self, key: Hashable, value: T) -> None:
        """It was told without being asked for."""
        self._known[key] = value
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, key: Hashable) -> None:
        """It may be another from now on."""
        self._known.pop(key, None)
