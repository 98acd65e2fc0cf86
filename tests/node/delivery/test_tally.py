"""What a killed node had read and not written down is told by the next, to the row."""

from __future__ import annotations

import os
from pathlib import Path

from infrasight.node.delivery.segment import Segment
from infrasight.node.delivery.tally import read_as_rows
from infrasight.node.flow import Encoded
from infrasight.schema import KINDS
from tests.node.delivery.spools import delivered, opened, piece


def told(directory: Path) -> dict[tuple[str, str], int]:
    """What a next life tells, which is killed before it writes that down."""
    spool = opened(directory)
    os.close(spool._lock)
    return {(loss.probe, loss.reason): loss.count for loss in spool.ledger.take()}


def test_what_was_read_and_not_written_down(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for kind, rows in (("open", 25), ("execve", 10), ("process", 3)):
        spool.tally.take(kind, rows)
    spool.append(piece(1, "open", rows=20))
    spool.append(piece(2, "execve", rows=10))
    os.close(spool._lock)
    lost = {("open", "killed"): 5, ("process", "killed"): 3}
    assert told(tmp_path) == lost
    assert told(tmp_path) == lost, "until it is written down that they are lost"
    spool = opened(tmp_path)
    (loss,) = (loss for loss in spool.ledger.take() if loss.probe == "open")
    assert loss.since_ns < loss.until_ns
    assert spool.rows() == {"open": 20, "execve": 10}
    spool.tally.take("loss", 2)
    spool.append(piece(1, "loss", rows=2))
    os.close(spool._lock)
    assert told(tmp_path) == {}


def test_a_clean_end_loses_nothing(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for seq in range(1, 11):
        spool.tally.take("open", 10)
        spool.append(piece(seq))
    delivered(spool, 4)
    spool.close()
    assert told(tmp_path) == {}


def test_killed_between_writing_down_and_counting(tmp_path: Path) -> None:
    """The record is there: its rows are not lost."""
    spool = opened(tmp_path)
    for seq in (1, 2):
        spool.tally.take("open", 10)
        if seq == 1:
            spool.append(piece(seq))
    state = spool._lanes[KINDS["open"].lane]
    Segment.append(state.segments[-1], state.fd, Encoded(2, "open", 10, b"x", 1, epoch=spool.epoch))
    os.close(spool._lock)
    assert told(tmp_path) == {}
    assert [seq for (_, seq), *_ in delivered(opened(tmp_path))] == [1, 2]


def test_what_the_disk_did_not_give_back(tmp_path: Path) -> None:
    """Whatever became of it: a segment that is gone, a header that is no more, a tail that was cut off."""
    for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"?" + path.read_bytes()[1:]), lambda path: os.truncate(path, 100)):
        directory = tmp_path / str(id(damage))
        spool = opened(directory)
        for seq in range(1, 4):
            spool.tally.take("open", 7)
            spool.append(piece(seq, rows=7))
        delivered(spool, 1)
        os.close(spool._lock)
        (segment,) = directory.glob("*.seg")
        damage(segment)
        again = opened(directory)
        left = sum(rows for _, _, rows, _ in delivered(again))
        lost = {(loss.probe, loss.reason): loss.count for loss in again.ledger.take()}
        assert lost.get(("open", "spool_damaged"), 0) + left == 14
        again.close()
        assert told(directory) == {}


def test_a_payload_that_is_damaged_is_told_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.tally.take("open", 20)
    spool.append(piece(1))
    spool.append(piece(2))
    os.close(spool._lock)
    (segment,) = tmp_path.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    again = opened(tmp_path)
    assert [seq for (_, seq), *_ in delivered(again)] == [1]
    assert {(loss.probe, loss.reason): loss.count for loss in again.ledger.take()} == {("open", "spool_damaged"): 10}
    again.close()
    assert told(tmp_path) == {}


def test_what_the_server_took_without_a_disk_is_accounted_for(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.problem, spool._retry_at_s = "broken", float("inf")
    spool.tally.take("open", 20)
    spool.append(piece(1))
    delivered(spool)
    spool.append(piece(2))
    os.close(spool._lock)
    assert told(tmp_path) == {("open", "killed"): 10}


def test_each_record_of_most_kinds_is_a_row() -> None:
    made = {name for name, kind in KINDS.items() if kind.origin != "kernel"}
    assert {name for name, kind in KINDS.items() if not read_as_rows(kind)} == {"process", "resource", "syscall_freq", *made}
