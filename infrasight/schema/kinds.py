"""The event kinds: from this list record layouts, Arrow schemas, tables, protobuf messages and the reference page derive."""

from __future__ import annotations

from infrasight.schema.columns import Kind
from infrasight.schema.events.chmod import CHMOD
from infrasight.schema.events.connect import CONNECT
from infrasight.schema.events.execve import EXECVE
from infrasight.schema.events.loss import LOSS
from infrasight.schema.events.mount import MOUNT, UMOUNT
from infrasight.schema.events.open import OPEN
from infrasight.schema.events.process import PROCESS
from infrasight.schema.events.ptrace import PTRACE

LOSS_REASONS: dict[str, str] = {
    "ring_full": "the ring buffer had no room: the node did not read fast enough",
    "inflight_full": "the map of calls in flight was full: the call was not followed to its end",
}
"""Reasons for loss, and what each means; bpf/include/emit.h counts them by their place in this list."""

KINDS: dict[str, Kind] = {kind.name: kind for kind in (EXECVE, OPEN, CONNECT, PROCESS, LOSS, CHMOD, PTRACE, MOUNT, UMOUNT)}
"""All kinds by name."""
PROBES: tuple[str, ...] = tuple(kind.name for kind in KINDS.values() if kind.origin == "kernel")
"""Names of the kinds that come from the kernel."""
