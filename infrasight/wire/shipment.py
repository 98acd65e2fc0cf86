"""The call that nodes make: batches go, acknowledgements come back."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Self

from infrasight.errors import Disconnected
from infrasight.wire import Ack, AckVerdict, Batch, CollectorBase, Hello, ShipRequest, ShipResponse, Welcome
from infrasight.wire.channel import Call, Channel


class Shipment:
    """A stream of batches to the server, and of acknowledgements back: a context manager. One task may send while another iterates over the
    acks."""

    def __init__(self, channel: Channel, hello: Hello, on_attention: Callable[[bool], None] = lambda watched: None) -> None:
        self._hello = hello
        self._on_attention = on_attention
        self._unanswered: deque[tuple[int, int]] = deque()
        """Epoch and seq of the batches that were sent whole, in order."""
        self._answers: deque[Ack] = deque()
        """What one Ack of the server says, an Ack for each batch."""
        self._call: Call[ShipRequest, ShipResponse] = channel.call(CollectorBase, ShipRequest, ShipResponse)
        self.welcome = Welcome()
        """What the server answered to our Hello."""

    async def __aenter__(self) -> Self:
        """Say hello. InvalidRequest when the server does not like it."""
        async with contextlib.AsyncExitStack() as unless_welcome:
            await unless_welcome.enter_async_context(self._call)
            await self._call.send(ShipRequest(hello=self._hello))
            answer = await self._call.receive()
            if answer is None or answer.welcome is None:
                raise Disconnected("the server did not say welcome")
            self.welcome = answer.welcome
            unless_welcome.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._call.__aexit__(kind, error, trace)

    async def send(self, batch: Batch) -> None:
        """Send a batch, or a piece of one, waiting while the server takes no more. Disconnected when it is gone: what has no Ack by
        then goes into the next shipment, unchanged and under the same `epoch` and `seq`."""
        if not batch.more:
            self._unanswered.append((batch.epoch or self._hello.epoch, batch.seq))
        await self._call.send(ShipRequest(batch=batch))

    async def end(self) -> None:
        """Send no more; the remaining acks still come, and then their iteration ends."""
        await self._call.end()

    def __aiter__(self) -> AsyncIterator[Ack]:
        return self

    async def __anext__(self) -> Ack:
        """The next Ack, one for each batch although the server may tell of many at once; its epoch is never 0. The iteration ends after `end` and the
        last one, and earlier when the server stops. Disconnected when it is gone."""
        while not self._answers:
            answer = await self._call.receive()
            if answer is None:
                raise StopAsyncIteration
            if answer.attention is not None:
                self._on_attention(answer.attention.watched)
            if answer.ack is not None:
                self._answers.extend(self._told(answer.ack))
        return self._answers.popleft()

    def _told(self, ack: Ack) -> Iterator[Ack]:
        """An Ack for each batch that the server's speaks for; of one that was not sent, or has had its answer, it says nothing."""
        named = ack.epoch or self._hello.epoch, ack.seq
        if named not in self._unanswered:
            return
        if ack.verdict is not AckVerdict.OK:
            self._unanswered.remove(named)
            yield Ack(ack.seq, ack.verdict, ack.reason, ack.retry_after_ms, named[0])
            return
        before = None
        while before != named:
            before = epoch, seq = self._unanswered.popleft()
            yield Ack(seq, AckVerdict.OK, epoch=epoch)
