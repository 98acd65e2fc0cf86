"""An actor: one long-lived piece of work whose inputs and outputs are constructor arguments, wired elsewhere (graph.py)."""

import abc


class Actor(abc.ABC):
    """Subclass it, set `name`, take mailboxes in the constructor, work in `run`.

    | question            | answer |
    |---------------------|--------|
    | who starts it?      | a Supervisor, each in a task of its own, downstream actors first |
    | when does it end?   | `run` returns: its input is closed and drained, or (a source) `stop` was called |
    | what is a crash?    | any exception out of `run`, but MailboxClosed when there is no one left to send to or to hear from |
    | after a crash?      | `run` is called again on the same object, with the same mailboxes and what is in them |
    | what can a crash lose? | only the item in hand: taken from the inbox, not yet put into the outbox |
    | who closes mailboxes? | the Supervisor; an actor never closes one |

    The usual body is ``async for item in self.inbox: await self.outbox.put(work(item))``. `run` may be called again after a crash, so
    it sets up what it needs itself and releases it in a `finally`.
    """

    name: str
    """Unique in its graph, an agent noun: `reader`, `batcher`."""

    @abc.abstractmethod
    async def run(self) -> None:
        """Work until there is no more to do, then return. CancelledError must propagate."""

    def stop(self) -> None:  # noqa: B027 - not abstract on purpose: only sources have something to do here
        """Ask a source to finish soon; only sources (no input) are asked. Legal before start and twice. Must not raise."""
