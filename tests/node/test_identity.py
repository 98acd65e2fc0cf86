"""Process ids: the same from records and from /proc, different for everything else."""

import numpy as np
import pytest

from infrasight.node.identity import TICK_NS, Identity, boot_id

STARTS = np.random.default_rng(1).integers(0, 10**16, 1000, np.uint64)
PIDS = np.random.default_rng(2).integers(1, 1 << 22, 1000, np.uint32)
PINNED = [16390051149802483994, 11847289216619460489]


def test_many_at_once_are_each_by_itself() -> None:
    identity = Identity("node", "boot")
    together = identity.of(STARTS, PIDS)
    assert together.dtype == np.uint64
    for at in range(0, 1000, 97):
        assert identity.of(STARTS[at : at + 1], PIDS[at : at + 1])[0] == together[at]


def test_records_and_proc_agree() -> None:
    """/proc tells the start in ticks of 10 ms, cut off."""
    identity = Identity("node", "boot")
    assert np.array_equal(identity.of(STARTS, PIDS), identity.of_ticks(STARTS // np.uint64(TICK_NS), PIDS))
    start = np.array([5 * TICK_NS, 5 * TICK_NS + 1, 6 * TICK_NS - 1, 6 * TICK_NS], np.uint64)
    first, *same, other = identity.of(start, np.full(4, 9, np.uint32)).tolist()
    assert set(same) == {first} != {other}


def test_no_two_are_the_same() -> None:
    """Pids and starts as near to each other as they can be."""
    starts, pids = (grid.ravel() for grid in np.meshgrid(np.arange(300, dtype=np.uint64), np.arange(1, 1001, dtype=np.uint32)))
    ids = Identity("node", "boot").of_ticks(starts, pids)
    assert len(np.unique(ids)) == 300_000
    assert ids.all()


@pytest.mark.parametrize(("node", "boot"), [("node2", "boot"), ("node", "boot2"), ("nodeb", "oot"), ("", "node\0boot"), ("žluť", "boot")])
def test_nodes_and_boots_differ(node: str, boot: str) -> None:
    assert not set(Identity("node", "boot").of(STARTS, PIDS).tolist()) & set(Identity(node, boot).of(STARTS, PIDS).tolist())


def test_it_stays_what_it_was() -> None:
    """Ids are stored for years: these may never change."""
    assert Identity("node", "boot").of_ticks(np.array([1, 2**40], np.uint64), np.array([1, 4_194_304], np.uint32)).tolist() == PINNED


def test_zero_means_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Identity, "__init__", lambda self: setattr(self, "_seed", np.uint64(0)))
    assert Identity().of_ticks(np.zeros(1, np.uint64), np.zeros(1, np.uint32)).tolist() == [1]  # type: ignore[call-arg]  # as patched


def test_the_boot_id() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
