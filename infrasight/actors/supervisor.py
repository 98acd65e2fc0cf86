"""The supervisor: runs a graph's actors, restarts those that crash, lets them drain, stops them."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from infrasight.actors.actor import Actor
from infrasight.actors.graph import Graph
from infrasight.actors.restarts import RestartBudget, RestartPolicy
from infrasight.errors import ActorFailed, MailboxClosed

__all__ = ["RestartPolicy", "Supervisor"]

log = logging.getLogger(__name__)


class Supervisor:
    """Runs one graph once.

    | question             | answer |
    |----------------------|--------|
    | start order?         | downstream first, so that a receiver is there before its first item |
    | drain order?         | upstream first: a mailbox is closed when all who put into it have ended, so the end runs down the graph |
    | a receiver ends early? | its inbox is closed when all who get from it have ended: senders get MailboxClosed at their next put |
    | a crash?             | the actor is run again with the same mailboxes, after a backoff; beyond the budget ActorFailed ends the graph |
    | MailboxClosed out of run()? | the actor's end, no crash, if an outbox is closed or every inbox is closed and empty |
    | afterwards?          | every mailbox is closed, no task is left, however it ended |
    """

    def __init__(
        self,
        graph: Graph,
        policy: RestartPolicy = RestartPolicy(),  # noqa: B008 - frozen
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        on_crash: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        """`clock` and `sleep` are in seconds. `on_crash` gets the actor's name and the exception at each crash, and must not raise."""
        self._graph = graph
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._on_crash = on_crash
        self._source_names = frozenset(actor.name for actor in graph.sources())
        self._budgets = {actor.name: RestartBudget(policy) for actor in graph.actors}
        self._crashes = {actor.name: 0 for actor in graph.actors}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._started = False
        self._cut_short = False
        self._stopping = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def crashes(self) -> dict[str, int]:
        """Crashes since the start by actor, every actor listed."""
        return dict(self._crashes)

    @property
    def running(self) -> list[str]:
        """Names of the actors that have started and not ended, upstream first; one that waits for its restart is among them."""
        return [actor.name for actor in self._graph.order if actor.name in self._tasks and not self._tasks[actor.name].done()]

    async def run(self) -> None:
        """Run every actor to its end. Returns when all ended, also when `stop` cut them short; at once when `stop` came before.

        Raises ActorFailed when an actor is over its restart budget; RuntimeError on a second call. Cancelling it cancels every actor
        and waits for them.
        """
        if self._started:
            raise RuntimeError(f"graph {self._graph.name!r}: a supervisor runs once")
        self._started = True
        try:
            if not self._stopping.is_set():
                await self._run_actors()
        except BaseException:
            self._cut_short = True
            raise
        finally:
            for mailbox in self._graph.mailboxes:
                mailbox.close()
            self._over.set()

    async def stop(self, grace_s: float) -> bool:
        """Ask the sources to stop and wait up to `grace_s` seconds for the graph to drain, then cancel what is left and wait for that.

        True when every actor ended by itself. Legal before start (run() will then start nothing), twice, and after the end; a second
        call with a shorter grace hurries the first. Not for actors: it waits for its caller.
        """
        self._stopping.set()
        for source in self._graph.sources():
            source.stop()
        if self._started and not await self._happens_within(self._over, grace_s):
            self._cut_short = True
            log.warning("%s: not drained after %g s, cancelling %s", self._graph.name, grace_s, ", ".join(self.running))
            for task in self._tasks.values():
                if not task.cancelling():  # a second cancel would interrupt its cleanup
                    task.cancel()
            await self._over.wait()
        return not self._cut_short

    async def _run_actors(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for actor in reversed(self._graph.order):
                    self._tasks[actor.name] = tasks.create_task(self._keep_running(actor), name=f"{self._graph.name}.{actor.name}")
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]  # the first cancelled the others; any further failure has been logged
            raise first from first.__cause__

    async def _keep_running(self, actor: Actor) -> None:
        try:
            while (crash := await self._run_once(actor)) is not None and await self._recover(actor, crash):
                pass
        except asyncio.CancelledError:
            self._end(actor)
            raise
        # Not in a finally: after a failure, downstream must be cancelled, not told that its input ended well.
        self._end(actor)

    async def _run_once(self, actor: Actor) -> BaseException | None:
        """None when the actor ended, else what it crashed with. A CancelledError that nobody asked for is a crash as well."""
        try:
            await actor.run()
        except (Exception, asyncio.CancelledError) as error:  # a supervisor is where any crash is handled
            if _is_being_cancelled():
                if not isinstance(error, asyncio.CancelledError):
                    log.warning("%s.%s crashed while it was cancelled: %r", self._graph.name, actor.name, error)
                raise asyncio.CancelledError from error
            return None if isinstance(error, MailboxClosed) and self._is_done_for(actor) else error
        return None

    async def _recover(self, actor: Actor, crash: BaseException) -> bool:
        """Count the crash and wait out the backoff: True to restart, False for a source that was asked to stop. Raises ActorFailed."""
        self._crashes[actor.name] += 1
        who = f"{self._graph.name}.{actor.name}"
        log.debug("%s crashed", who, exc_info=crash)
        if self._on_crash is not None:
            self._on_crash(actor.name, crash)
        backoff_s = self._budgets[actor.name].spend(self._clock())
        if backoff_s is None:
            log.error("%s crashed, %d restarts within %g s used up: %r", who, self._policy.budget, self._policy.within_s, crash)
            raise ActorFailed(actor.name, crash) from crash
        log.warning("%s crashed, restart in %g s: %r", who, backoff_s, crash)
        if actor.name in self._source_names:
            return not await self._happens_within(self._stopping, backoff_s)
        await self._sleep(backoff_s)
        return True

    def _end(self, actor: Actor) -> None:
        """Close what only this actor still put into (the drain goes on downstream) or got from (senders must not wait for nobody)."""
        self._ended.add(actor.name)
        for mailbox in self._graph.outboxes(actor.name):
            if self._graph.senders(mailbox) <= self._ended:
                mailbox.close()
        for mailbox in self._graph.inboxes(actor.name):
            if self._graph.receivers(mailbox) <= self._ended:
                mailbox.close()
                if depth := mailbox.statistics().depth:
                    log.warning("%s.%s ended and left %d unread in %s", self._graph.name, actor.name, depth, mailbox.name)

    def _is_done_for(self, actor: Actor) -> bool:
        """Nobody left to send to, or nothing left to hear."""
        inboxes = self._graph.inboxes(actor.name)
        heard_all = bool(inboxes) and all(mailbox.closed and not mailbox.statistics().depth for mailbox in inboxes)
        return heard_all or any(mailbox.closed for mailbox in self._graph.outboxes(actor.name))

    async def _happens_within(self, event: asyncio.Event, seconds: float) -> bool:
        """Whether `event` is set within `seconds`, measured by the sleep we were given."""
        if event.is_set():
            return True
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(self._sleep(seconds))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        return event.is_set()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
