"""The event kinds: from this list record layouts, Arrow schemas, tables, protobuf messages and the reference page derive."""

from __future__ import annotations

from functools import cache

from infrasight.schema.columns import Buffer, Kind, Length
from infrasight.schema.events.accept import ACCEPT
from infrasight.schema.events.alerts import ALERTS
from infrasight.schema.events.batches import BATCHES
from infrasight.schema.events.bind import BIND, LISTEN
from infrasight.schema.events.bpf import BPF
from infrasight.schema.events.capset import CAPSET
from infrasight.schema.events.chmod import CHMOD
from infrasight.schema.events.chroot import CHROOT
from infrasight.schema.events.connect import CONNECT
from infrasight.schema.events.container import CONTAINER
from infrasight.schema.events.dead_letter import DEAD_LETTER
from infrasight.schema.events.dns import DNS
from infrasight.schema.events.execve import EXECVE
from infrasight.schema.events.io_uring_setup import IO_URING_SETUP
from infrasight.schema.events.link import LINK, SYMLINK
from infrasight.schema.events.loss import LOSS
from infrasight.schema.events.memfd_create import MEMFD_CREATE
from infrasight.schema.events.mkdir import MKDIR
from infrasight.schema.events.mmap import MMAP
from infrasight.schema.events.module import MODULE
from infrasight.schema.events.mount import MOUNT, UMOUNT
from infrasight.schema.events.mprotect import MPROTECT
from infrasight.schema.events.nodes import NODES
from infrasight.schema.events.open import OPEN
from infrasight.schema.events.process import PROCESS
from infrasight.schema.events.process_vm import PROCESS_VM
from infrasight.schema.events.ptrace import PTRACE
from infrasight.schema.events.rename import RENAME
from infrasight.schema.events.resource import RESOURCE
from infrasight.schema.events.scores import SCORES
from infrasight.schema.events.setid import SETID
from infrasight.schema.events.setns import SETNS
from infrasight.schema.events.socket import DUP, SOCKET
from infrasight.schema.events.syscall_freq import SYSCALL_FREQ
from infrasight.schema.events.unlink import UNLINK
from infrasight.schema.events.unshare import UNSHARE
from infrasight.schema.events.userfaultfd import USERFAULTFD
from infrasight.schema.layout import Layout, layouts

LOSS_REASONS: dict[str, str] = {
    "ring_full": "the ring buffer had no room: the node did not read fast enough",
    "inflight_full": "the map of calls in flight was full: the call was not followed to its end",
    "accounts_full": "there was no room for another account of a process: what it did then is not in any",
    "throttled": "there were more of them from one cgroup than the rate cap allows",
    "repeated": "the same process had done the same thing a moment before, and repeats are counted only",
}
"""Reasons for loss in the kernel, and what each means; bpf/include/emit.h counts them by their place in this list."""
NODE_LOSS_REASONS: dict[str, str] = {
    "killed": "the node had read them, and ended without a chance to write them down",
    "unseen": "the node was killed: what was in the rings then, and all until it ran again, is in no count; the row, of no probe, says when that was",
    "spool_full": "the server was away for long, and the node's disk space for what is not stored yet was used up by what is worth more, or is newer",
    "spool_expired": "the server was away for longer than the node keeps what is not stored",
    "spool_damaged": "the node's disk did not give back what was written to it",
}
"""Reasons for loss on the node (docs/RELIABILITY.md)."""

BUFFERS: dict[str, Buffer] = {
    buffer.name: buffer
    for buffer in (
        Buffer("process", 4 << 20, "process life, on its own so that ancestry survives a flood of anything else"),
        Buffer("open", 32 << 20, "opens, of which there are most: a core makes 200 MiB of them a second"),
        Buffer("execve", 1 << 20, "programs executed"),
        Buffer("net", 1 << 20, "sockets"),
        Buffer("dns", 1 << 20, "messages to and from name servers"),
        Buffer("file", 2 << 20, "changes to the file tree"),
        Buffer("call", 4 << 20, "the other calls, which have no strings: few, but strace makes 40,000 ptrace calls a second, beside others"),
        Buffer("resource", 1 << 20, "accounts of what processes used, when they end"),
        Buffer("syscall_freq", 2 << 20, "accounts of their system calls, likewise"),
        Buffer(Length.MEDIUM.value, 4 << 20, "what does not fit into a short record, of any kind"),
        Buffer(Length.LONG.value, 4 << 20, "what does not fit into a medium one either"),
    )
}
"""The ring buffers by name."""


def filled_bytes(ring_bytes: int) -> int:
    """How much is in a ring of this size when its reader is woken up: it can be held up for several times as long as that took before anything is
    lost."""
    return min(ring_bytes // 4, 2 << 20)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *(EXECVE, OPEN, CONNECT, PROCESS, LOSS, CHMOD, PTRACE, MOUNT, UMOUNT, RESOURCE, SYSCALL_FREQ),
        *(UNLINK, RENAME, LINK, SYMLINK, MKDIR, CHROOT),
        *(ACCEPT, BIND, LISTEN, SOCKET, DUP, DNS),
        *(MMAP, MPROTECT, MEMFD_CREATE, PROCESS_VM, MODULE, BPF, USERFAULTFD, IO_URING_SETUP, SETID, CAPSET, SETNS, UNSHARE),
        CONTAINER,
        *(BATCHES, NODES, ALERTS, SCORES, DEAD_LETTER),
    )
}
"""All kinds by name."""
PROBES: tuple[str, ...] = tuple(kind.name for kind in KINDS.values() if kind.origin == "kernel")
"""Names of the kinds that come from the kernel."""
SHIPPED: tuple[str, ...] = tuple(kind.name for kind in KINDS.values() if kind.origin != "server")
"""Names of the kinds that nodes ship: all but those that the server makes itself."""
ALWAYS = "process"
"""The probe that always runs: from process life it is known who did what."""


@cache
def records_of(ring: str) -> tuple[Layout, ...]:
    """The records that go through a ring."""
    return tuple(record for name in PROBES for record in layouts(KINDS[name]) if record.ring == ring)
