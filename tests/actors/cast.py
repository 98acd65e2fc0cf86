"""The actors that the tests put on stage."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from infrasight.actors import Actor, Mailbox


class Source(Actor):
    """Puts its items, each once even across crashes, then ends (or, when `endless`, waits to be stopped)."""

    def __init__(self, name: str, outbox: Mailbox[int], items: Iterable[int] = (), *, endless: bool = False) -> None:
        self.name = name
        self.outbox = outbox
        self.items = list(items)
        self.stops = 0
        self.stopped = asyncio.Event()
        if not endless:
            self.stopped.set()

    async def run(self) -> None:
        while self.items:
            await self.outbox.put(self.items[0])
            self.items.pop(0)
        await self.stopped.wait()

    def stop(self) -> None:
        self.stops += 1
        self.stopped.set()


class Stage(Actor):
    """Passes items on after `work` (which may raise) and notes its start and its end in `diary`."""

    def __init__(self, name: str, inbox: Mailbox[int], outboxes: Sequence[Mailbox[int]], *, diary: list[str] | None = None,
                 work: Callable[[int], int] = lambda item: item) -> None:
        self.name = name
        self.inbox = inbox
        self.outboxes = outboxes
        self.diary = diary if diary is not None else []
        self.work = work

    async def run(self) -> None:
        self.diary.append(f"{self.name} starts")
        async for item in self.inbox:
            for outbox in self.outboxes:
                await outbox.put(self.work(item))
        self.diary.append(f"{self.name} ends")


class Sink(Actor):
    """Keeps what it gets. Waits for `gate` before each item; ends early after `enough` items; `work` may raise."""

    def __init__(self, name: str, inbox: Mailbox[int], *, enough: int | None = None, diary: list[str] | None = None,
                 work: Callable[[int], int] = lambda item: item) -> None:
        self.name = name
        self.inbox = inbox
        self.enough = enough
        self.diary = diary if diary is not None else []
        self.work = work
        self.got: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self) -> None:
        self.diary.append(f"{self.name} starts")
        await self.gate.wait()
        async for item in self.inbox:
            self.got.append(self.work(item))
            if len(self.got) == self.enough:
                break
            await self.gate.wait()
        self.diary.append(f"{self.name} ends")


class Failing(Actor):
    """Raises the next of `errors` at each run (the last one for ever), counting runs."""

    def __init__(self, name: str, errors: Sequence[BaseException]) -> None:
        self.name = name
        self.errors = list(errors)
        self.runs = 0

    async def run(self) -> None:
        self.runs += 1
        raise self.errors.pop(0) if len(self.errors) > 1 else self.errors[0]


class Waiting(Actor):
    """Waits for ever, deaf to stop; notes that it was cancelled, and how its cleanup went."""

    def __init__(self, name: str, *, cleanup: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.cleanup = cleanup
        self.cancelled = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True
            self.cleanup()
