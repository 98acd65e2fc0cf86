from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import pyarrow as pa
import pytest

from infrasight.actors import Mailbox
from infrasight.errors import InvalidBatch, MailboxClosed, StoreUnavailable
from infrasight.server.joining import ENOUGH_ROWS, LINGER_S, MAX_BATCHES, Group, Joiner
from infrasight.server.nodes import MAX_LIVES, MAX_NUMBERS, Node, Numbers
from infrasight.server.session import Delivery
from infrasight.server.writer import Writer
from infrasight.wire import Hello
from tests.server.running import MemoryStore
from tests.waiting import LIMIT_S
from tests.wire.batches import batch


class Desk:
    """A joiner, its inbox and the time."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.now = 1000.0
        self.inbox: Mailbox[Delivery] = Mailbox("in", limit=10_000)
        self.joiner = Joiner(self.inbox, limit_bytes, clock=lambda: self.now)

    def put(self, *tokens: str, kind: str = "open", rows: int = 3) -> None:
        for token in tokens:
            self.inbox.put_nowait(Delivery(kind, batch(kind, rows), token, lambda _: None))

    async def next(self) -> list[str]:
        """Tokens of the group that is due now."""
        return [delivery.token for delivery in (await asyncio.wait_for(self.joiner.next(), LIMIT_S)).deliveries]

    async def nothing(self) -> bool:
        try:
            await asyncio.wait_for(self.joiner.next(), 0.01)
        except TimeoutError:
            return True
        return False


async def test_one_alone_goes_at_once() -> None:
    desk = Desk()
    for token in "abc":
        desk.put(token)
        assert await desk.next() == [token]
        desk.now += LINGER_S


async def test_others_of_the_kind_are_waited_for_where_they_come_often() -> None:
    desk = Desk()
    desk.put("a")
    assert await desk.next() == ["a"]
    desk.now += LINGER_S / 2
    desk.put("b", "c")
    assert await desk.nothing()
    desk.put("d")
    desk.put("x", kind="loss")  # seldom
    assert await desk.next() == ["x"]
    desk.now += LINGER_S / 2
    assert await desk.nothing()
    desk.now += LINGER_S / 2
    assert await desk.next() == ["b", "c", "d"]


async def test_what_gathers_while_others_are_stored_goes_together_and_the_longest_due_first() -> None:
    desk = Desk()
    desk.put("a", "b", kind="open")
    desk.put("c", kind="loss")
    desk.now += 0.1
    desk.put("d", kind="open")
    assert await desk.next() == ["a", "b", "d"]
    assert await desk.next() == ["c"]


async def test_a_group_that_has_enough_waits_no_longer() -> None:
    desk = Desk()
    desk.put("a")
    await desk.next()
    desk.put("b", rows=ENOUGH_ROWS - 1)
    assert await desk.nothing()
    desk.put("c", rows=1)
    assert await desk.next() == ["b", "c"]


async def test_groups_are_bounded() -> None:
    desk = Desk()
    desk.put("a")
    await desk.next()
    desk.put(*map(str, range(2 * MAX_BATCHES)), rows=1, kind="loss")
    desk.put("big", "bigger", rows=40_000)
    seen = [await desk.next() for _ in range(2)]
    desk.inbox.close()
    seen += [await desk.next() for _ in range(2)]
    assert sorted(map(len, seen)) == [1, 1, MAX_BATCHES, MAX_BATCHES]
    with pytest.raises(MailboxClosed):
        await desk.next()


async def test_what_is_held_is_bounded_in_bytes() -> None:
    size = Delivery("open", batch("open", 3), "t", lambda _: None).nbytes
    desk = Desk(limit_bytes=3 * size)
    desk.put("a")
    await desk.next()
    desk.put("b", "c", "d", "e", "f")
    assert await desk.next() == ["b", "c", "d"]  # full: not due, but there is no room for others
    assert desk.inbox.statistics().depth == 2
    assert await desk.nothing()


async def test_a_closed_inbox_holds_nothing_up() -> None:
    desk = Desk()
    desk.put("a")
    await desk.next()
    desk.put("b")
    assert await desk.nothing()
    desk.inbox.close()
    assert await desk.next() == ["b"]
    with pytest.raises(MailboxClosed):
        await desk.next()


async def test_waiting_ends_in_real_time() -> None:
    inbox: Mailbox[Delivery] = Mailbox("in", limit=100)
    joiner = Joiner(inbox, 1 << 30)
    waiting = asyncio.create_task(joiner.next(), name="next")
    await asyncio.sleep(0)
    for token in "ab":
        inbox.put_nowait(Delivery("open", batch("open", 1), token, lambda _: None))
        if token == "a":
            assert [each.token for each in (await asyncio.wait_for(waiting, LIMIT_S)).deliveries] == ["a"]
    assert [each.token for each in (await asyncio.wait_for(joiner.next(), LIMIT_S)).deliveries] == ["b"]


class Picky(MemoryStore):
    """Never takes batches whose token begins with `bad`, but as dead letters; keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[list[str], set[str]]] = []

    async def insert_joined(self, kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = ()) -> None:
        self.asked.append((list(batches), set(doubtful)))
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("deliberate")
        if kind == "open" and any(token.startswith("bad") for token in batches):
            raise InvalidBatch("deliberate")
        await super().insert_joined(kind, batches, doubtful)


def writing(store: MemoryStore, *tokens: str, doubtful: Collection[str] = ()) -> tuple[Writer, list[tuple[str, str]]]:
    inbox: Mailbox[Delivery] = Mailbox("in", limit=1000)
    answers: list[tuple[str, str]] = []
    for token in tokens:
        settle = lambda problem, token=token: answers.append((token, problem))  # noqa: E731 - it is one
        inbox.put_nowait(Delivery("open", batch("open", 3), token, settle, doubtful=token in doubtful))
    inbox.close()
    return Writer(inbox, Mailbox("ledger", limit=100), Mailbox("notes", limit=100), store, sleep=lambda _: asyncio.sleep(0)), answers


async def test_one_that_cannot_be_stored_does_not_sink_the_others() -> None:
    store = Picky()
    tokens = [f"{'bad' if i in (3, 60, 61) else 'good'}:1:{i}" for i in range(100)]
    writer, answers = writing(store, *tokens)
    await writer.run()
    assert answers == [(token, "deliberate" if token.startswith("bad") else "") for token in tokens]
    assert len(store.asked) < 40
    kinds = {token: kind for token, (kind, _) in store.kept.items()}
    assert kinds == {token: "dead_letter" if token.startswith("bad") else "open" for token in tokens}


async def test_the_store_is_asked_for_what_is_doubtful_and_after_a_failure_for_all() -> None:
    store = Picky()
    store.failures = 1
    writer, answers = writing(store, "a", "b", "b", "c", doubtful={"b"})
    await writer.run()
    assert store.asked == [(["a", "b", "c"], {"b"}), (["a", "b", "c"], {"a", "b", "c"})]
    assert answers == [("a", ""), ("b", ""), ("b", ""), ("c", "")]


async def test_a_crash_in_the_middle_of_finding_the_bad_one_answers_nobody_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Picky()
    writer, answers = writing(store, "a", "b", "c", "bad:1:2")
    insert, calls = store.insert_joined, 0

    async def crashing(kind: str, batches: Mapping[str, pa.RecordBatch], doubtful: Collection[str] = ()) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise LookupError("deliberate")
        await insert(kind, batches, doubtful)

    monkeypatch.setattr(store, "insert_joined", crashing)
    with pytest.raises(LookupError):
        await writer.run()
    await writer.run()
    assert answers == [("a", ""), ("b", ""), ("c", ""), ("bad:1:2", "deliberate")]


def test_what_was_tried_is_doubtful_in_halves_too() -> None:
    deliveries = [Delivery("open", batch("open", 1), token, lambda _: None, doubtful=False) for token in "abc"]
    group = Group("open", deliveries)
    assert group.doubtful() == set()
    group.tried = True
    assert [half.doubtful() for half in group.halves()] == [{"a"}, {"b", "c"}]


def test_what_a_node_left_without_an_answer_to_is_doubtful() -> None:
    """It has gone to another server with it."""
    left = False
    group = Group("open", [Delivery("open", batch("open", 1), "a", lambda _: None, doubtful=False, left=lambda: left)])
    assert not group.doubtful()
    left = True
    assert group.doubtful() == {"a"}


def test_a_number_is_new_once() -> None:
    numbers = Numbers()
    assert [numbers.take(number) for number in (0, 1, 3, 1, 3, 2, 2, 0, 4)] == [True, True, True, False, False, True, False, False, True]


def test_of_more_numbers_than_can_be_remembered_the_lowest_count_as_had() -> None:
    numbers = Numbers()
    assert all(numbers.take(number) for number in range(10**6, 10**6 + 20 * MAX_NUMBERS, 2))
    assert not numbers.take(5)
    assert numbers.take(10**6 + 20 * MAX_NUMBERS - 3)
    assert len(numbers._above) <= MAX_NUMBERS


def test_lives_of_a_node_have_numbers_of_their_own_and_are_bounded() -> None:
    node = Node(Hello(node="n"))
    for epoch in range(MAX_LIVES + 1):
        assert node.numbers(epoch).take(1)
    assert not node.numbers(MAX_LIVES).take(1)
    assert node.numbers(0).take(1)  # forgotten: then the node's word counts
