from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import pytest

from infrasight.actors import Mailbox
from infrasight.errors import InvalidBatch
from infrasight.server.session import Delivery
from infrasight.server.writer import RETRY_S, Writer
from infrasight.wire.codec import decode
from tests.server.running import MemoryStore
from tests.wire.batches import batch


class Desk:
    """A writer with its inbox, its store, what it answered and how long it slept."""

    def __init__(self, deliveries: int, **more: float) -> None:
        self.store = MemoryStore()
        self.inbox: Mailbox[Delivery] = Mailbox("in", limit=100)
        self.answers: list[tuple[str, str]] = []
        self.slept: list[float] = []
        self.put_off: list[tuple[str, str, int]] = []
        self.now_s = 0.0
        self._put(range(deliveries))
        self.told: Any = Mailbox("ledger", limit=100), Mailbox("notes", limit=100)
        self.writer = Writer(self.inbox, *self.told, self.store, sleep=self._sleep, clock=lambda: self.now_s, **more)

    def _put(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.inbox.put_nowait(Delivery("open", batch("open", 3), f"n:1:{number}", functools.partial(self._answered, f"n:1:{number}")))
        self.inbox.close()

    def again(self, number: int) -> None:
        """One more delivery, for the same writer."""
        self.inbox = self.writer._joiner._inbox = Mailbox("in", limit=100)
        self._put([number])

    def _answered(self, token: str, problem: str, retry_after_ms: int = 0) -> None:
        self.answers.append((token, problem))
        if retry_after_ms:
            self.put_off.append((token, problem, retry_after_ms))

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


async def test_every_delivery_is_stored_then_answered() -> None:
    desk = Desk(3)
    await desk.writer.run()
    assert desk.store.tokens == ["n:1:0", "n:1:1", "n:1:2"]
    assert desk.answers == [("n:1:0", ""), ("n:1:1", ""), ("n:1:2", "")]


async def test_a_failing_store_is_tried_again_ever_more_patiently_and_order_is_kept() -> None:
    desk = Desk(2)
    desk.store.failures = 8
    await desk.writer.run()
    assert desk.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert desk.store.tokens == ["n:1:0", "n:1:1"]
    assert desk.writer.retries == 8
    assert desk.writer.problem == ""


async def test_the_problem_is_there_to_see_while_it_lasts() -> None:
    desk = Desk(1)
    desk.store.failures = 1
    seen = []

    async def look(_: float) -> None:
        seen.append((desk.writer.problem, list(desk.answers)))

    desk.writer._sleep = look
    await desk.writer.run()
    assert seen == [("disk full", [])]


async def test_what_the_store_will_never_take_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(2)
    insert = desk.store.insert

    async def picky(kind: str, columns: object, token: str) -> None:
        if token == "n:1:0" and kind == "open":
            raise InvalidBatch("open.ts is before 1970")
        await insert(kind, columns, token)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.store, "insert", picky)
    await desk.writer.run()
    assert desk.answers == [("n:1:0", "open.ts is before 1970"), ("n:1:1", "")]
    kind, rows = desk.store.kept["n:1:0"]
    (letter,) = rows.to_pylist()
    assert (kind, letter["event_kind"], letter["rows"], letter["reason"]) == ("dead_letter", b"open", 3, b"open.ts is before 1970")
    assert decode("open", letter["payload"]).equals(batch("open", 3))


async def test_what_is_not_even_taken_as_a_dead_letter_is_rejected_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(1)

    async def never(kind: str, columns: object, token: str) -> None:
        raise InvalidBatch(f"no {kind}")

    monkeypatch.setattr(desk.store, "insert", never)
    await desk.writer.run()
    assert desk.answers == [("n:1:0", "no open")]


async def test_a_store_that_is_away_for_long_has_nodes_send_again() -> None:
    """One delivery in a while tries it; once it is back, what comes is stored."""
    desk = Desk(4, patience_s=1.0)
    desk.store.failures = 5
    await desk.writer.run()
    assert desk.slept == [0.1, 0.2, 0.4, 0.8], "1.5 s: then patience is over"
    assert [(token, problem, ms > 0) for token, problem, ms in desk.put_off] == [(f"n:1:{n}", "disk full", True) for n in range(4)]
    assert desk.writer.handed_back == 4
    desk.now_s += RETRY_S
    desk.again(4)
    await desk.writer.run()
    assert desk.store.tokens == ["n:1:4"]
    assert desk.answers[4:] == [("n:1:4", "")]
    assert desk.writer.problem == ""


async def test_a_crash_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(2)
    insert, crashes = desk.store.insert, iter([True, False, False])

    async def crashing(kind: str, columns: object, token: str) -> None:
        if next(crashes):
            raise LookupError("deliberate")
        await insert(kind, columns, token)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.store, "insert", crashing)
    with pytest.raises(LookupError):
        await desk.writer.run()
    await desk.writer.run()
    assert desk.answers == [("n:1:0", ""), ("n:1:1", "")]
