"""Supervision: order, drain, crashes, stop, cancellation. All in virtual time."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from infrasight.actors import Actor, Edge, Graph, Mailbox, RestartPolicy, Supervisor
from infrasight.errors import ActorFailed, MailboxClosed
from tests.waiting import LIMIT_S

from .cast import Failing, Sink, Source, Stage, Waiting
from .clock import VirtualClock, settle


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def box(name: str, limit: int = 2) -> Mailbox[int]:
    return Mailbox(name, limit=limit)


def supervise(clock: VirtualClock, actors: Sequence[Actor], edges: Sequence[Edge] = (), policy: RestartPolicy | None = None) -> Supervisor:
    return Supervisor(Graph("g", actors, edges), policy or RestartPolicy(), clock=clock.time, sleep=clock.sleep)


async def finish(running: "asyncio.Task[None]") -> None:
    """Await with a real limit, so that a hang is a failure and not a hang."""
    await asyncio.wait_for(running, LIMIT_S)


def crash_on(*bad: int) -> "CrashOn":
    return CrashOn(bad)


class CrashOn:
    """Work that raises the first time it sees each of `bad`."""

    def __init__(self, bad: Sequence[int]) -> None:
        self.left = list(bad)

    def __call__(self, item: int) -> int:
        if item in self.left:
            self.left.remove(item)
            raise RuntimeError(f"bad item {item}")
        return item


async def test_starts_downstream_first_and_drains_upstream_first(clock: VirtualClock) -> None:
    diary: list[str] = []
    a, b, c = box("a"), box("b"), box("c")
    sink = Sink("sink", c, diary=diary)
    supervisor = supervise(
        clock,
        [Source("source", a, range(20)), Stage("one", a, [b], diary=diary), Stage("two", b, [c], diary=diary), sink],
        [Edge(a, "source", "one"), Edge(b, "one", "two"), Edge(c, "two", "sink")],
    )
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert diary == ["sink starts", "two starts", "one starts", "one ends", "two ends", "sink ends"]
    assert sink.got == list(range(20))
    assert supervisor.running == []
    assert supervisor.crashes == {"source": 0, "one": 0, "two": 0, "sink": 0}
    assert await supervisor.stop(1.0)


async def test_tasks_are_named_after_graph_and_actor(clock: VirtualClock) -> None:
    supervisor = supervise(clock, [Waiting("reader")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    assert "g.reader" in {task.get_name() for task in asyncio.all_tasks()}
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(running)


async def test_a_shared_mailbox_closes_after_the_last_of_its_sources(clock: VirtualClock) -> None:
    shared = box("shared")
    early, late = Source("early", shared, [1]), Source("late", shared, endless=True)
    sink = Sink("sink", shared)
    supervisor = supervise(clock, [early, late, sink], [Edge(shared, "early", "sink"), Edge(shared, "late", "sink")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    assert supervisor.running == ["late", "sink"]
    assert not shared.closed
    late.items.append(2)
    late.stop()
    await finish(running)
    assert shared.closed


async def test_backpressure_reaches_the_source(clock: VirtualClock) -> None:
    """A stuck sink: its mailbox and the one before are full, the stage holds one item, the source blocks on the next."""
    a, b = box("a", 3), box("b", 4)
    source, sink = Source("source", a, range(100)), Sink("sink", b)
    sink.gate.clear()
    graph = Graph("g", [source, Stage("stage", a, [b]), sink], [Edge(a, "source", "stage"), Edge(b, "stage", "sink")])
    running = asyncio.create_task(Supervisor(graph, clock=clock.time, sleep=clock.sleep).run())
    await settle()
    statistics = graph.statistics()
    assert (statistics["a"].accepted, statistics["b"].accepted) == (3 + 1 + 4, 4)
    assert (statistics["a"].waiting_senders, statistics["b"].waiting_senders) == (1, 1)
    sink.gate.set()
    await finish(running)
    assert sink.got == list(range(100))
    assert [s.peak_weight for s in graph.statistics().values()] == [3, 4]


async def test_a_crash_restarts_the_actor_and_keeps_what_is_queued(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    a = box("a", 10)
    sink = Sink("sink", a, work=crash_on(3))
    seen: list[tuple[str, str]] = []
    graph = Graph("g", [Source("source", a, range(6)), sink], [Edge(a, "source", "sink")])
    supervisor = Supervisor(graph, clock=clock.time, sleep=clock.sleep, on_crash=lambda name, error: seen.append((name, str(error))))
    with caplog.at_level(logging.INFO):
        running = asyncio.create_task(supervisor.run())
        await settle()
        assert sink.got == [0, 1, 2]
        assert a.statistics().depth == 2
        assert supervisor.running == ["sink"]
        await clock.advance(0.1)
        await finish(running)
    assert sink.got == [0, 1, 2, 4, 5], "only the item in hand is lost"
    assert supervisor.crashes["sink"] == 1
    assert seen == [("sink", "bad item 3")]
    assert clock.slept == [0.1]
    assert [record.getMessage() for record in caplog.records] == ["g.sink crashed, restart in 0.1 s: RuntimeError('bad item 3')"]


async def test_over_budget_everything_is_cancelled_and_the_failure_named(clock: VirtualClock) -> None:
    cause = RuntimeError("again")
    failing, waiting = Failing("failing", [cause]), Waiting("waiting")
    inbox = box("inbox")
    sink = Sink("sink", inbox)
    supervisor = supervise(
        clock, [failing, waiting, sink], [Edge(inbox, "failing", "sink")],
        RestartPolicy(budget=3, within_s=60, backoff_s=1, backoff_max_s=100),
    )
    running = asyncio.create_task(supervisor.run())
    for backoff_s in (1, 2, 4):
        assert not running.done()
        await clock.advance(backoff_s)
    with pytest.raises(ActorFailed, match="'failing'") as failed:
        await finish(running)
    assert failed.value.actor == "failing"
    assert failed.value.cause is failed.value.__cause__ is cause
    assert failing.runs == supervisor.crashes["failing"] == 4
    assert clock.slept == [1, 2, 4]
    assert waiting.cancelled
    assert "sink ends" not in sink.diary, "cancelled, not told that its input ended well"
    assert inbox.closed
    assert not await supervisor.stop(1.0)


async def test_rare_crashes_are_forgiven_for_ever(clock: VirtualClock) -> None:
    failing = Failing("failing", [RuntimeError("rare")])
    supervisor = supervise(clock, [failing], policy=RestartPolicy(budget=1, within_s=10, backoff_s=1))
    running = asyncio.create_task(supervisor.run())
    await settle()
    for _ in range(20):
        await clock.advance(10)
    assert failing.runs == 21
    assert not running.done()
    await finish_by_stop(supervisor, running)


async def finish_by_stop(supervisor: Supervisor, running: "asyncio.Task[None]") -> None:
    await asyncio.wait_for(supervisor.stop(1.0), LIMIT_S)
    await finish(running)


async def test_a_cancelled_error_nobody_asked_for_is_a_crash(clock: VirtualClock) -> None:
    failing = Failing("failing", [asyncio.CancelledError("leaked")])
    running = asyncio.create_task(supervise(clock, [failing], policy=RestartPolicy(budget=0)).run())
    with pytest.raises(ActorFailed):
        await finish(running)


async def test_stop_drains(clock: VirtualClock) -> None:
    a, b = box("a"), box("b", 1)
    source, sink = Source("source", a, range(50), endless=True), Sink("sink", b)
    supervisor = supervise(clock, [source, Stage("stage", a, [b]), sink], [Edge(a, "source", "stage"), Edge(b, "stage", "sink")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    assert await asyncio.wait_for(supervisor.stop(5.0), LIMIT_S)
    await finish(running)
    assert sink.got == list(range(50))
    assert await supervisor.stop(5.0), "twice"
    assert source.stops == 2


async def test_stop_before_start(clock: VirtualClock) -> None:
    a = box("a")
    source, sink = Source("source", a, [1], endless=True), Sink("sink", a)
    supervisor = supervise(clock, [source, sink], [Edge(a, "source", "sink")])
    assert await supervisor.stop(5.0)
    assert await supervisor.stop(5.0)
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert sink.diary == [], "nothing was started"
    assert a.closed


async def test_stop_cancels_what_is_left_after_its_grace(clock: VirtualClock) -> None:
    deaf, willing = Waiting("deaf"), Source("willing", box("unused"), endless=True)
    supervisor = supervise(clock, [deaf, willing])
    running = asyncio.create_task(supervisor.run())
    await settle()
    stopping = asyncio.create_task(supervisor.stop(5.0))
    await clock.advance(4.9)
    assert not stopping.done()
    assert supervisor.running == ["deaf"]
    await clock.advance(0.2)
    assert await asyncio.wait_for(stopping, LIMIT_S) is False
    assert deaf.cancelled
    await finish(running)  # returns: stopping was asked for
    assert await supervisor.stop(5.0) is False


async def test_a_second_stop_may_hurry_the_first(clock: VirtualClock) -> None:
    supervisor = supervise(clock, [Waiting("deaf")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    patient = asyncio.create_task(supervisor.stop(100.0))
    await settle()
    hurried = asyncio.create_task(supervisor.stop(1.0))
    await clock.advance(1.0)
    assert not any(await asyncio.wait_for(asyncio.gather(patient, hurried), LIMIT_S))
    await finish(running)


async def test_two_stops_cancel_once(clock: VirtualClock) -> None:
    """A second cancel would interrupt the cleanup that the first began."""
    cleanup_may_end = asyncio.Event()
    cleaned: list[str] = []

    class Careful(Actor):
        name = "careful"

        async def run(self) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await cleanup_may_end.wait()
                cleaned.append("up")

    supervisor = supervise(clock, [Careful()])
    running = asyncio.create_task(supervisor.run())
    await settle()
    stops = [asyncio.create_task(supervisor.stop(grace_s)) for grace_s in (1.0, 2.0)]
    await clock.advance(1.0)
    await clock.advance(1.0)
    assert not running.done()
    cleanup_may_end.set()
    assert not any(await asyncio.wait_for(asyncio.gather(*stops), LIMIT_S))
    await finish(running)
    assert cleaned == ["up"]


async def test_stop_ends_the_backoff_of_a_source_but_not_of_those_who_drain(clock: VirtualClock) -> None:
    a = box("a", 10)
    source, sink = Source("source", a, range(3), endless=True), Sink("sink", a, work=crash_on(1))
    failing = Failing("failing", [RuntimeError("once")])
    supervisor = supervise(clock, [source, sink, failing], [Edge(a, "source", "sink")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    stopping = asyncio.create_task(supervisor.stop(60.0))
    await settle()
    assert supervisor.running == ["sink"]
    assert failing.runs == 1
    await clock.advance(0.1)
    assert await asyncio.wait_for(stopping, LIMIT_S)
    await finish(running)
    assert sink.got == [0, 2]


async def test_cancelling_run_cancels_every_actor_and_waits_for_them(clock: VirtualClock) -> None:
    actors = [Waiting("one"), Waiting("two")]
    supervisor = supervise(clock, [*actors, Failing("resting", [RuntimeError("in backoff")])])
    running = asyncio.create_task(supervisor.run())
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(running)
    assert all(actor.cancelled for actor in actors)
    assert supervisor.running == []
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_cleanup_that_raises_is_logged_and_not_restarted(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    def cleanup() -> None:
        raise OSError("disk gone")

    supervisor = supervise(clock, [Waiting("messy", cleanup=cleanup)])
    running = asyncio.create_task(supervisor.run())
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await finish(running)
    assert "g.messy crashed while it was cancelled: OSError('disk gone')" in caplog.text
    assert supervisor.crashes == {"messy": 0}


async def test_a_receiver_that_ends_early_ends_its_senders(clock: VirtualClock, caplog: pytest.LogCaptureFixture) -> None:
    """Source and stage would block for ever; both get MailboxClosed, which is their end and no crash."""
    a, b = box("a"), box("b")
    sink = Sink("sink", b, enough=3)
    actors = [Source("source", a, range(1000)), Stage("stage", a, [b]), sink]
    graph = Graph("g", actors, [Edge(a, "source", "stage"), Edge(b, "stage", "sink")])
    supervisor = Supervisor(graph, clock=clock.time, sleep=clock.sleep)
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert sink.got == [0, 1, 2]
    assert set(supervisor.crashes.values()) == {0}
    assert "g.sink ended and left" in caplog.text
    assert all(s.accepted == s.delivered + s.dropped + s.depth for s in graph.statistics().values())


async def test_a_shared_inbox_stays_open_while_another_receiver_is_there(clock: VirtualClock) -> None:
    a = box("a")
    quitter, stayer = Sink("quitter", a, enough=1), Sink("stayer", a)
    edges = [Edge(a, "source", "quitter"), Edge(a, "source", "stayer")]
    supervisor = supervise(clock, [Source("source", a, range(30)), quitter, stayer], edges)
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert sorted(quitter.got + stayer.got) == list(range(30))
    assert len(quitter.got) == 1


async def test_mailbox_closed_is_a_crash_while_there_is_someone_to_talk_to(clock: VirtualClock) -> None:
    """MailboxClosed of some mailbox outside the graph excuses nobody."""
    failing = Failing("failing", [MailboxClosed("elsewhere")])
    outbox = box("outbox")
    supervisor = supervise(clock, [failing, Sink("sink", outbox)], [Edge(outbox, "failing", "sink")], RestartPolicy(budget=0))
    with pytest.raises(ActorFailed):
        await asyncio.wait_for(supervisor.run(), LIMIT_S)


async def test_an_actor_that_gets_until_mailbox_closed_ends_well(clock: VirtualClock) -> None:
    class Plain(Actor):
        name = "plain"

        async def run(self) -> None:
            while True:
                await a.get()

    a = box("a")
    supervisor = supervise(clock, [Source("source", a, range(5)), Plain()], [Edge(a, "source", "plain")])
    await asyncio.wait_for(supervisor.run(), LIMIT_S)
    assert supervisor.crashes["plain"] == 0
    assert a.statistics().delivered == 5


async def test_an_actor_task_cancelled_from_outside_does_not_leave_its_receivers_waiting(clock: VirtualClock) -> None:
    a = box("a")
    sink = Sink("sink", a)
    supervisor = supervise(clock, [Source("source", a, [1], endless=True), sink], [Edge(a, "source", "sink")])
    running = asyncio.create_task(supervisor.run())
    await settle()
    next(task for task in asyncio.all_tasks() if task.get_name() == "g.source").cancel()
    await finish(running)
    assert sink.got == [1]


async def test_runs_once(clock: VirtualClock) -> None:
    supervisor = supervise(clock, [])
    await supervisor.run()
    with pytest.raises(RuntimeError, match="once"):
        await supervisor.run()
