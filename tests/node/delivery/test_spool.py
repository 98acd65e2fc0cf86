"""The spool: nothing that it took is forgotten, over any number of lives."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

import pytest

from infrasight.node.delivery import spool as module
from infrasight.node.delivery.limits import SpoolLimits
from infrasight.node.delivery.segment import Segment
from infrasight.node.delivery.spool import Spool
from infrasight.node.flow import Encoded, Loss
from infrasight.schema import Lane
from tests.node.delivery.spools import KINDS, delivered, killed, opened, piece, rows, telling
from tests.waiting import until


def fill(spool: Spool, count: int, kind: str = "open", *, first: int = 1, size: int = 100) -> None:
    for seq in range(first, first + count):
        spool.append(piece(seq, kind, size=size))


def seqs(spool: Spool, most: int = 1 << 30) -> list[int]:
    return [seq for (_, seq), *_ in delivered(spool, most)]


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_comes_in_goes_out_in_order(on_disk: bool, tmp_path: Path) -> None:
    spool = opened(tmp_path if on_disk else None)
    fill(spool, 50)
    out = delivered(spool)
    assert [(id, kind, count) for id, kind, count, _ in out] == [((spool.epoch, seq), "open", 10) for seq in range(1, 51)]
    assert [data for *_, data in out] == [piece(seq).payload for seq in range(1, 51)]
    assert not spool.waiting
    assert spool.safe == on_disk
    spool.close()


def test_the_most_valuable_lane_goes_first(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for seq, kind in enumerate(("resource", "open", "execve", "syscall_freq", "connect", "ptrace", "loss"), 1):
        spool.append(piece(seq, kind))
    assert [kind for _, kind, *_ in delivered(spool)] == ["execve", "ptrace", "loss", "open", "connect", "resource", "syscall_freq"]
    spool.close()


def test_what_was_not_delivered_is_delivered_by_the_next_life_under_its_own_epoch(tmp_path: Path) -> None:
    first = opened(tmp_path)
    fill(first, 30)
    assert seqs(first, 10) == list(range(1, 11))
    first.close()
    second = opened(tmp_path)
    assert second.epoch > first.epoch
    assert second.rows() == {"open": 200}
    fill(second, 3)
    out = delivered(second)
    assert [id for id, *_ in out] == [(first.epoch, seq) for seq in range(11, 31)] + [(second.epoch, seq) for seq in (1, 2, 3)]
    assert [data for *_, data in out[:20]] == [piece(seq).payload for seq in range(11, 31)]
    second.close()
    assert not list(tmp_path.glob("*.seg")), "all is delivered"
    third = opened(tmp_path)
    assert (delivered(third), third.skipped.total(), third.disk.bytes) == ([], 0, 0)
    third.close()


def test_what_was_sent_and_not_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    """Of a killed process nothing is closed, nor synced."""
    first = opened(tmp_path)
    fill(first, 5)
    held = [first.next() for _ in range(4)]
    first.done([each for each in held[:2] if each])
    killed(first)  # what the kernel does
    second = opened(tmp_path)
    assert seqs(second) == [3, 4, 5]
    second.close()


def test_a_clock_that_was_set_back_reuses_no_epoch(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        spool = opened(tmp_path)
        epochs.append(spool.epoch)
        spool.close()
        (tmp_path / "epoch").write_text(f"{spool.epoch + 10**18}\n")  # the time then; now it is before that
    assert epochs == sorted(set(epochs))
    assert epochs[1:] == [epochs[0] + 10**18 + 1, epochs[0] + 2 * 10**18 + 2]


def test_a_directory_is_one_node_s(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    assert not first.disk.problem
    assert "another node uses" in second.disk.problem
    assert f"no spool at {tmp_path}: another node uses {tmp_path}; what the server does not take is kept in memory" in caplog.text
    fill(second, 3)
    assert seqs(second) == [1, 2, 3]
    first.close()


def test_only_so_much_waits_in_memory(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    fill(spool, 100, size=100_000)
    assert sum(len(held.payload or b"") for state in spool._lanes.values() for held in state.ready) <= module.READY_BYTES
    assert spool.disk.bytes > 100 * 100_000
    assert seqs(spool) == list(range(1, 101))
    spool.close()


def test_without_a_disk_there_is_room_for_so_much(tmp_path: Path) -> None:
    spool = opened(None)
    count = 0
    while spool.room:
        count += 1
        spool.append(piece(count, size=100_000))
    assert count == module.READY_BYTES // 100_000 + 1
    assert spool.unsafe_rows() == {"open": 10 * count}
    assert seqs(spool) == list(range(1, count + 1))
    assert spool.room


async def test_segments_that_are_delivered_are_removed_and_cursors_synced_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path, bytes=1 << 20, fsync_s=0.01)
    order: list[str] = []
    monkeypatch.setattr(spool.disk._cursors, "sync", lambda: order.append("cursors"))
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda path, **more: (order.append(path.name), unlink(path, **more)))
    keeping = asyncio.create_task(spool.keep())
    fill(spool, 9, size=40_000)
    assert spool.segments == 5
    delivered(spool)
    await until(lambda: len(os.listdir(tmp_path)) == 5 + 1)  # lock, epoch, note, tally, cursors
    assert order[0] == "cursors"
    assert len(order) == 5
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    spool.close()


async def test_what_is_stored_in_time_is_never_synced_and_what_is_not_is(tmp_path: Path) -> None:
    spool = opened(tmp_path, fsync_s=0.04)
    keeping = asyncio.create_task(spool.keep())
    for first in range(1, 200, 10):
        fill(spool, 10, first=first)
        delivered(spool)
        await asyncio.sleep(0.005)
    assert spool.disk.fsyncs == 0
    fill(spool, 1, first=1000)
    await until(lambda: spool.disk.fsyncs == 1)
    await asyncio.sleep(0.1)
    assert spool.disk.fsyncs == 1, "once is enough"
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    spool.close()


# Batches in pieces.


def in_pieces(seq: int, count: int, kind: str = "open") -> list[Encoded]:
    return [piece(seq, kind, rows=number + 1, more=number + 1 < count, number=number) for number in range(count)]


def test_pieces_go_out_as_they_come(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for each in in_pieces(1, 3):
        spool.append(each)
        held = spool.next()
        assert held
        assert (held.id, held.rows, held.more) == ((spool.epoch, 1), each.rows, each.more)
        assert spool.next() is None, "its end is still to come"
    spool.close()


def test_a_batch_that_grew_when_the_node_was_killed_is_ended(tmp_path: Path) -> None:
    first = opened(tmp_path)
    grows, other = in_pieces(1, 3), in_pieces(2, 2)
    for each in (grows[0], other[0], grows[1], piece(3), other[1]):
        first.append(each)
    first.close()
    second = opened(tmp_path)
    out = delivered(second)
    assert [(seq, count) for (_, seq), _, count, _ in out] == [(1, 3), (2, 3), (3, 10)]
    assert out[0][3] == grows[0].payload + grows[1].payload
    assert delivered(second) == []
    second.close()
    assert delivered(opened(tmp_path)) == []


def test_what_is_done_stays_done_though_another_grows(tmp_path: Path) -> None:
    """The lane's cursor waits for the growing one; a kill then brings what came after it a second time, under its number."""
    spool = opened(tmp_path)
    parts = in_pieces(1, 2)
    spool.append(parts[0])
    fill(spool, 3, first=2)
    held = [spool.next() for _ in range(4)]
    spool.done([each for each in held[1:] if each])
    assert spool.rows() == {"open": 1}
    spool.append(parts[1])
    end = spool.next()
    assert end
    spool.done([each for each in (held[0], end) if each])
    assert (spool.rows(), spool.next()) == ({}, None)
    spool.close()
    assert delivered(opened(tmp_path)) == []


# Too much, too old.


def test_what_is_worth_least_and_is_oldest_is_given_up_and_told(tmp_path: Path) -> None:
    spool = opened(tmp_path, bytes=1 << 20)
    put: dict[str, int] = {}
    for seq in range(1, 91):
        kind = KINDS[seq % 3]
        spool.append(piece(seq, kind, size=20_000))
        put[kind] = put.get(kind, 0) + 10
    assert spool.disk.bytes <= 1 << 20
    lost = spool.ledger.take()
    assert {(loss.probe, loss.reason) for loss in lost} <= {("resource", "spool_full"), ("open", "spool_full")}
    given_up = {loss.probe: loss.count for loss in lost}
    assert spool.given_up == {"security": 0, "activity": given_up.get("open", 0), "telemetry": given_up["resource"]}
    out = delivered(spool)
    kept = rows(out)
    assert all(kept.get(kind, 0) + given_up.get(kind, 0) == count for kind, count in put.items())
    left = [seq for (_, seq), kind, *_ in out if kind == "open"]
    assert left == [seq for seq in range(1, 91) if KINDS[seq % 3] == "open"][-len(left) :], "the newest"
    (telemetry,) = (loss for loss in lost if loss.probe == "resource")
    assert 10**18 <= telemetry.since_ns <= telemetry.until_ns <= 10**18 + 90
    spool.close()


def told(seq: int, reason: str, count: int) -> Encoded:
    """A row of `loss`."""
    return telling(seq, [Loss("open", reason, count, 10, 20)])


def test_what_rows_of_loss_say_outlasts_them(tmp_path: Path) -> None:
    """Of those that are given up; not of those that are stored, nor twice."""
    spool = opened(tmp_path, bytes=1 << 20)
    spool.append(told(1, "rate", 3))
    assert [kind for _, kind, *_ in delivered(spool)] == ["loss"]
    for seq, (reason, count) in enumerate([("ring_full", 5), ("ring_full", 7), ("rate", 11)], 2):
        spool.append(told(seq, reason, count))
    fill(spool, 100, "execve", first=10, size=20_000)
    lost = {(loss.probe, loss.reason): (loss.count, loss.since_ns, loss.until_ns) for loss in spool.ledger.take()}
    given_up, *_ = lost.pop(("execve", "spool_full"))
    assert lost == {("open", "ring_full"): (12, 10, 20), ("open", "rate"): (11, 10, 20)}
    assert ("open", "ring_full") not in spool.ledger.counts, "it was counted when it was lost"
    assert rows(delivered(spool)) == {"execve": 1000 - given_up}
    spool.close()


def test_nothing_is_given_up_that_is_with_the_server(tmp_path: Path) -> None:
    """Or it might be lost and stored."""
    spool = opened(tmp_path, bytes=1 << 20)
    fill(spool, 5, "resource", size=20_000)
    sent = [spool.next() for _ in range(5)]
    fill(spool, 200, "open", size=20_000)
    spool.done([each for each in sent if each])
    lost = {loss.probe: loss.count for loss in spool.ledger.take()}
    assert lost.keys() == {"open"}
    assert lost["open"] + rows(delivered(spool))["open"] == 2000
    spool.close()


def test_what_is_too_old_is_given_up(tmp_path: Path) -> None:
    now = [0.0]
    spool = Spool(tmp_path, SpoolLimits(age_s=100), wall_s=lambda: now[0])
    spool.open()
    spool.recover()
    fill(spool, 3)
    fill(spool, 2, "execve", first=10, size=2_000_000)
    now[0] = spool._lanes[Lane.ACTIVITY].segments[0].written_s + 99
    spool._giving_up.too_old()
    assert spool.ledger.take() == []
    now[0] += 5
    fill(spool, 1, "execve", first=20)
    spool._giving_up.too_old()
    assert {(loss.probe, loss.reason, loss.count) for loss in spool.ledger.take()} >= {("execve", "spool_expired", 30)}
    spool.close()


# A disk that fails.


def test_a_disk_that_fails_and_comes_back_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    spool = Spool(tmp_path, clock=lambda: now[0])
    spool.open()
    spool.recover()
    fill(spool, 3)
    append, broken = Segment.append, [True]

    def failing(segment: Segment, fd: int, piece: Encoded) -> int:
        if broken[0]:
            os.pwrite(fd, b"half a record", segment.size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(segment, fd, piece)

    monkeypatch.setattr(Segment, "append", failing)
    sent = [spool.next() for _ in range(3)]
    fill(spool, 5, first=4)
    assert spool.disk.problem == "No space left on device"
    assert not spool.safe
    assert spool.unsafe_rows() == {"open": 50}
    now[0] += 100
    fill(spool, 1, first=9)
    assert spool.disk.problem
    assert caplog.text.count("No space left on device") == 1, "said once"
    broken[0] = False
    in_memory = spool.next()
    fill(spool, 1, first=10)
    assert spool.disk.problem, "not before it is tried again"
    now[0] += 100
    fill(spool, 1, first=11)
    assert (spool.disk.problem, spool.safe) == ("", True)
    assert "the spool works again" in caplog.text
    assert in_memory
    assert in_memory.id[1] == 4
    spool.done([each for each in sent if each])
    killed(spool)
    monkeypatch.undo()
    again = opened(tmp_path)
    assert seqs(again) == list(range(4, 12))
    assert again.skipped.total() == 0
    again.close()


@pytest.mark.needs("root")
def test_a_directory_of_somebody_else_s(tmp_path: Path) -> None:
    """They could have a link in it, to what they cannot write to themselves."""
    theirs, precious = tmp_path / "theirs", tmp_path / "precious"
    theirs.mkdir()
    precious.write_text("precious")
    (theirs / "probe").symlink_to(precious)
    os.chown(theirs, 1234, 1234)
    spool = Spool(theirs)
    spool.open()
    spool.recover()
    assert spool.disk.problem == f"{theirs} belongs to user 1234"
    fill(spool, 2)
    assert seqs(spool) == [1, 2]
    spool.close()
    assert (os.listdir(theirs), precious.read_text()) == (["probe"], "precious")


def test_a_directory_that_cannot_be_used_at_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    now = [0.0]
    spool = Spool(tmp_path / "file" / "spool", clock=lambda: now[0])
    spool.open()
    spool.recover()
    assert spool.disk.problem == "Not a directory"
    fill(spool, 2)
    (tmp_path / "file").unlink()
    now[0] += 100
    fill(spool, 1, first=3)
    assert spool.safe
    assert seqs(spool) == [1, 2, 3]
    spool.close()
