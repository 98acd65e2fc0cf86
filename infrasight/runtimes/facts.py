"""What is known of a container."""

from __future__ import annotations

from dataclasses import dataclass

LABELS_MAX, LABEL_BYTES_MAX = 64, 1024
"""Labels kept of a container, in the order of their names, and bytes of each with its name: annotations of people can be of any size."""


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


def labels_of(told: dict[str, str]) -> tuple[bytes, ...]:
    """Labels as facts have them: bounded, without NUL, by name."""
    words = [f"{name}={value}".encode().replace(b"\0", b"") for name, value in sorted(told.items())]
    return tuple(word[:LABEL_BYTES_MAX] for word in words[:LABELS_MAX])
