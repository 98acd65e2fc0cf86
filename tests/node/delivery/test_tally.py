"""What a killed node had read and not written down is told by the next, to the row."""

from __future__ import annotations

import os
import time
from pathlib import Path

from infrasight.node.delivery.note import Note
from infrasight.node.delivery.segment import Segment
from infrasight.node.delivery.tally import read_as_rows
from infrasight.node.flow import Encoded
from infrasight.schema import KINDS
from tests.node.delivery.spools import delivered, killed, opened, piece, telling


def told(directory: Path) -> dict[tuple[str, str], int]:
    """What a next life tells, which is killed before it writes that down."""
    spool = opened(directory)
    killed(spool)
    return {(loss.probe, loss.reason): loss.count for loss in spool.ledger.take() if loss.count}


def test_what_was_read_and_not_written_down(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for kind, rows in (("open", 25), ("execve", 10), ("process", 3)):
        spool.tally.take(kind, rows)
    spool.append(piece(1, "open", rows=20))
    spool.append(piece(2, "execve", rows=10))
    killed(spool)
    lost = {("open", "killed"): 5, ("process", "killed"): 3}
    assert told(tmp_path) == lost
    assert told(tmp_path) == lost, "until it is written down that they are lost"
    spool = opened(tmp_path)
    losses = spool.ledger.take()
    assert all(loss.since_ns < loss.until_ns for loss in losses)
    assert spool.rows() == {"open": 20, "execve": 10}
    spool.tally.take("loss", 2)
    spool.append(telling(1, losses))
    killed(spool)
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
    killed(spool)
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
        killed(spool)
        (segment,) = directory.glob("*.seg")
        damage(segment)
        again = opened(directory)
        left = sum(rows for _, _, rows, _ in delivered(again))
        losses = again.ledger.take()
        assert {(loss.probe, loss.reason) for loss in losses} <= {("open", "spool_damaged"), ("", "unseen")}
        assert sum(loss.count for loss in losses) + left == 14
        again.tally.take("loss", len(losses))
        again.append(telling(1, losses))
        again.close()
        assert told(directory) == {}


def test_a_payload_that_is_damaged_is_told_once(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.tally.take("open", 20)
    spool.append(piece(1))
    spool.append(piece(2))
    killed(spool)
    (segment,) = tmp_path.glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    again = opened(tmp_path)
    assert [seq for (_, seq), *_ in delivered(again)] == [1]
    again.close()
    assert told(tmp_path) == {("open", "spool_damaged"): 10}
    assert told(tmp_path) == {("open", "spool_damaged"): 10}, "until it is written down"
    again = opened(tmp_path)
    losses = again.ledger.take()
    again.tally.take("loss", len(losses))
    again.append(telling(1, losses))
    again.close()
    assert told(tmp_path) == {}


def test_a_kill_is_told_and_a_clean_end_is_not(tmp_path: Path) -> None:
    """Of what was in the rings, nobody knows how much it was."""
    first = opened(tmp_path)
    assert first.ledger.take() == []
    began_ns = time.time_ns()
    first.tally.take("open", 1)
    first.append(piece(1, rows=1))
    killed(first)
    second = opened(tmp_path)
    (loss,) = second.ledger.take()
    assert (loss.probe, loss.reason, loss.count) == ("", "unseen", 0)
    assert began_ns - 20_000_000 <= loss.since_ns <= loss.until_ns <= time.time_ns()  # a file's time is that of the last tick
    second.tally.take("loss", 1)
    second.append(telling(1, [loss]))
    second.close()
    assert opened(tmp_path).ledger.take() == []


def test_what_the_server_took_without_a_disk_is_accounted_for(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    spool.disk.problem, spool.disk._retry_at_s = "broken", float("inf")
    spool.tally.take("open", 20)
    spool.append(piece(1))
    delivered(spool)
    spool.append(piece(2))
    killed(spool)
    assert told(tmp_path) == {("open", "killed"): 10}


def test_each_record_of_most_kinds_is_a_row() -> None:
    made = {name for name, kind in KINDS.items() if kind.origin != "kernel"}
    assert {name for name, kind in KINDS.items() if not read_as_rows(kind)} == {"process", "resource", "syscall_freq", *made}


def test_a_note_is_changed_as_a_whole(tmp_path: Path) -> None:
    """Whatever becomes of the bytes of the last change, those of the one before are there; and a change that is too large leaves them."""
    path = tmp_path / "note"
    note = Note(path)
    for number in (1, 2, 3):
        note.write({"number": number})
    note.write({"much": "x" * (64 << 10)})
    assert note.failures == 1
    note.close()
    written = path.read_bytes()
    assert Note(path).content == {"number": 3}
    at = written.index(b'{"number":3}')
    for place in (at, at + 11, at - 1, at - 16):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        assert Note(path).content == {"number": 2}
