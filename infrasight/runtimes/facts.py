"""What is known of a container."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass

LABELS_MAX, LABEL_BYTES_MAX = 64, 1024
"""Labels kept of a container, in the order of their names, and bytes of each with its name: annotations of people can be of any size."""
DIGESTS_MAX = 1024
"""Digests of images that are remembered."""
_POD_NAME, _POD_NAMESPACE, _CONTAINER_NAME = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.container.name"
"""Labels that the kubelet has every container made with (kubernetes/pkg/kubelet/types/labels.go)."""
_NAMES = (_CONTAINER_NAME, "nerdctl/name")
"""Labels that are a container's name."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a runtime says of a container; empty or 0 where it says nothing. Text is UTF-8."""

    name: bytes = b""
    image: bytes = b""
    image_digest: bytes = b""
    labels: tuple[bytes, ...] = ()
    """`name=value` each."""
    created_ns: int = 0
    """ns since the epoch."""
    privileged: bool = False
    pod_name: bytes = b""
    pod_namespace: bytes = b""
    cgroup: bytes = b""
    """Path of its cgroup below the root, where it says so."""


Told = tuple[bytes, Facts | None]
"""A container's id and what it is; None when it is no more."""


def encoded(text: str) -> bytes:
    """UTF-8; what JSON can say and UTF-8 cannot (half of a surrogate pair) becomes a question mark."""
    return text.encode(errors="replace")


def facts_of(
    name: str, labels: Mapping[str, str], *, image: str, image_digest: bytes, created_ns: int, privileged: bool, cgroup: bytes = b""
) -> Facts:
    """With what labels say; `name` is the container's where they say none."""
    return Facts(
        name=encoded(next((labels[label] for label in _NAMES if label in labels), name)),
        image=encoded(image),
        image_digest=image_digest,
        labels=labels_of(labels),
        created_ns=created_ns,
        privileged=privileged,
        pod_name=encoded(labels.get(_POD_NAME, "")),
        pod_namespace=encoded(labels.get(_POD_NAMESPACE, "")),
        cgroup=cgroup,
    )


def labels_of(told: Mapping[str, str]) -> tuple[bytes, ...]:
    """Labels as facts have them: bounded, without NUL, by name."""
    words = [encoded(f"{name}={value}").replace(b"\0", b"") for name, value in sorted(told.items())]
    return tuple(word[:LABEL_BYTES_MAX] for word in words[:LABELS_MAX])


class Digests:
    """What names of images stand for: each is asked for once, as long as it is remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, bytes] = OrderedDict()

    async def of(self, image: Hashable, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        """That of an image. What `ask` raises goes to the caller."""
        if image not in self._known:
            self._known[image] = await ask()
            while len(self._known) > DIGESTS_MAX:
                self._known.popitem(last=False)
        self._known.move_to_end(image)
        return self._known[image]

    def forget(self, image: Hashable) -> None:
        """It may stand for another from now on."""
        self._known.pop(image, None)
