from __future__ import annotations

import pytest

from infrasight.actors import Mailbox, WhenFull
from infrasight.errors import InvalidBatch
from infrasight.server.session import Delivery
from infrasight.server.writer import Writer
from tests.server.running import MemoryStore
from tests.wire.batches import batch


class Desk:
    """A writer with its inbox, its store, what it answered and how long it slept."""

    def __init__(self, deliveries: int) -> None:
        self.store = MemoryStore()
        self.inbox: Mailbox[Delivery] = Mailbox("in", limit=100)
        self.answers: list[tuple[str, str]] = []
        self.slept: list[float] = []
        for number in range(deliveries):
            token = f"t{number}"
            self.inbox.put_nowait(Delivery("open", batch("open", 3), token, lambda problem, token=token: self.answers.append((token, problem))))  # type: ignore[misc]
        self.inbox.close()
        self.writer = Writer(self.inbox, self.store, Mailbox("notes", limit=100, when_full=WhenFull.DROP_OLDEST), sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


async def test_every_delivery_is_stored_then_answered() -> None:
    desk = Desk(3)
    await desk.writer.run()
    assert desk.store.tokens == ["t0", "t1", "t2"]
    assert desk.answers == [("t0", ""), ("t1", ""), ("t2", "")]


async def test_a_failing_store_is_tried_again_ever_more_patiently_and_order_is_kept() -> None:
    desk = Desk(2)
    desk.store.failures = 8
    await desk.writer.run()
    assert desk.slept == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert desk.store.tokens == ["t0", "t1"]
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
        if token == "t0":
            raise InvalidBatch("open.ts is before 1970")
        await insert(kind, columns, token)  # type: ignore[arg-type]

    monkeypatch.setattr(desk.store, "insert", picky)
    await desk.writer.run()
    assert desk.answers == [("t0", "open.ts is before 1970"), ("t1", "")]


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
    assert desk.answers == [("t0", ""), ("t1", "")]
