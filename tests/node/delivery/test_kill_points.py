"""A node's spool that is killed before each of the calls that change its files, and in the middle of each that writes: in the next life every row is
stored, or told as lost, and none is both."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrasight.node.delivery import spool as module
from infrasight.node.delivery.limits import SpoolLimits
from infrasight.node.delivery.spool import Spool
from infrasight.node.flow import Encoded, Loss
from infrasight.node.ledger import losses_in
from tests.node.delivery.spools import delivered, killed, opened, piece, telling

CALLS = ("pwrite", "pwritev", "truncate", "ftruncate", "unlink", "replace")
PAGE = 4096
"""A kill leaves a write whole within each."""
LIMITS: dict[str, Any] = {"bytes": 256 << 10}
RING = ("open", "ring_full")
"""What the kernel lost."""


class Kill(BaseException):
    """What no life lives through."""


class Killer:
    """Ends a life at one of its calls."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.at, self.count, self.torn = 0, 0, False
        self.tearable: set[int] = set()
        """Writes of which a kill may leave a part."""
        self._pwrite = os.pwrite
        patch.setattr(os, "fsync", lambda fd: None)  # which changes nothing for who is killed
        patch.setattr(os, "fdatasync", lambda fd: None)
        for name in CALLS:
            patch.setattr(os, name, self._call(name, getattr(os, name)))

    def _call(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                if self.torn and name.startswith("pwrite"):
                    data = b"".join(given[1]) if name == "pwritev" else bytes(given[1])
                    self._pwrite(given[0], data[: PAGE - given[2] % PAGE], given[2])
                raise Kill
            if name.startswith("pwrite") and given[2] % PAGE + sum(map(len, given[1] if name == "pwritev" else given[1:2])) > PAGE:
                self.tearable.add(self.count)
            return real(*given, **more)

        return call

    def arm(self, at: int, *, torn: bool = False) -> None:
        """0: never."""
        self.at, self.count, self.torn = at, 0, torn


class World:
    """What a spool was given, what the server has, and how much that may be."""

    def __init__(self) -> None:
        self.least, self.most = Counter[str](), Counter[str]()
        self.reasons: set[tuple[str, str]] = set()
        self.stored: dict[tuple[int, int], tuple[str, int, bytes]] = {}

    def take(self, spool: Spool, kind: str, rows: int) -> None:
        self.most[kind] += rows
        spool.tally.take(kind, rows)
        self.least[kind] += rows

    def put(self, spool: Spool, each: Encoded) -> None:
        self.take(spool, each.kind, each.rows)
        spool.append(each)

    def tell(self, spool: Spool, seq: int) -> None:
        if losses := spool.ledger.take():
            self.put(spool, telling(seq, losses))

    def lose_in_kernel(self, spool: Spool, count: int) -> list[Loss]:
        self.most["in kernel"] += count
        spool.ledger.tell(Loss(*RING, count, 10, 20 + count))
        losses = spool.ledger.take()
        self.least["in kernel"] += count
        return losses

    def serve(self, spool: Spool, most: int = 1 << 30) -> None:
        """The server stores what comes, and then its Ack does."""
        done = spool.done

        def stored(pieces: list[Any]) -> None:
            if whole := sum(each.rows for each in pieces):
                self.stored[pieces[0].id] = pieces[0].kind, whole, b"".join(each.payload for each in pieces)
            done(pieces)

        spool.done = stored  # type: ignore[method-assign]  # what the server is to see
        delivered(spool, most)

    def check(self, spool: Spool, where: str) -> None:
        """Of a life in which all is delivered."""
        self.serve(spool)
        told = [*spool.ledger.take(), *(loss for kind, _, data in self.stored.values() if kind == "loss" for loss in losses_in(data))]
        found, lost = Counter[str](), Counter[str]()
        for kind, rows, _ in self.stored.values():
            found[kind] += rows
        for loss in told:
            self.reasons.add((loss.probe, loss.reason))
            lost["in kernel" if (loss.probe, loss.reason) == RING else loss.probe] += loss.count
        for kind in self.most.keys() - {"loss"}:
            assert self.least[kind] <= found[kind] + lost[kind] <= self.most[kind], f"{where}: {kind}: {self.least}, {found} stored, {told}"


def live(world: World, directory: Path) -> None:
    """A life, or as much of it as there is: it loses something in all ways that there are."""
    spool = Spool(directory, SpoolLimits(**LIMITS))
    with contextlib.suppress(Kill):
        spool.open()
        spool.recover()
        _live(world, spool, directory)
    if spool.disk.held:
        killed(spool)


def go_on(world: World, directory: Path) -> None:
    """Another, that has to do with what the one before left."""
    spool = Spool(directory, SpoolLimits(**LIMITS))
    with contextlib.suppress(Kill):
        spool.open()
        spool.recover()
        world.tell(spool, 1)
        world.serve(spool, 3)
        world.put(spool, piece(2, "execve", size=100_000))
        world.tell(spool, 3)
    if spool.disk.held:
        killed(spool)


def _live(world: World, spool: Spool, directory: Path) -> None:
    world.take(spool, "open", 3)  # read, and never written down
    ring = world.lose_in_kernel(spool, 5)
    for seq in range(1, 5):
        world.put(spool, piece(seq, "open", size=20_000))
        world.put(spool, piece(20 + seq, "execve", size=2_000))
    world.serve(spool, 2)
    for seq in range(30, 38):
        world.put(spool, piece(seq, "resource", size=30_000))  # more than there is room for
    world.put(spool, telling(40, ring))
    world.tell(spool, 41)
    (segment, *_) = (each for each in sorted(directory.glob("activity-*.seg")) if each.stat().st_size)
    data = segment.read_bytes()
    segment.write_bytes(data[:-1] + b"?")
    world.serve(spool, 9)
    for seq in range(50, 66):
        world.put(spool, piece(seq, "execve", size=30_000))  # of more worth than all before; rows of `loss` are given up with others
    world.tell(spool, 70)
    world.serve(spool, 5)
    world.tell(spool, 71)
    spool.sync()


def test_a_kill_at_each_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_BYTES", 64 << 10)
    killer = Killer(monkeypatch)
    killer.arm(0)
    world = World()
    live(world, tmp_path / "whole")
    points, tearable = killer.count, frozenset(killer.tearable)
    world.check(opened(tmp_path / "whole", **LIMITS), "not killed")
    assert points > 100
    assert {reason for _, reason in world.reasons} >= {"spool_full", "spool_damaged", "ring_full"}
    for at in range(1, points + 1):
        for torn in (False, True) if at in tearable else (False,):
            world, directory = World(), tmp_path / f"{at}-{torn}"
            killer.arm(at, torn=torn)
            live(world, directory)
            where = f"killed at {at} of {points}{', torn' if torn else ''}"
            killer.arm(1 + 7 * at % 60)
            go_on(world, directory)
            where += f", and again at {killer.at}{'' if killer.count >= killer.at else ', after its end'}"
            killer.arm(0)
            spool = opened(directory, **LIMITS)
            world.check(spool, where)
            spool.close()
