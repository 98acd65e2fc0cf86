"""A server for the exporter to talk to: real gRPC on the loopback, and answers that a test decides."""

from collections.abc import Callable

from infrasight.errors import Disconnected
from infrasight.wire import Ack, AckVerdict, Attention, Batch, Hello, ShipRequest, ShipResponse, Welcome
from infrasight.wire.server import GrpcServer
from infrasight.wire.service import CollectorService, ServerStream

Answer = Ack | Attention | None | str
"""To a batch: an Ack, whether somebody watches, silence, or `hang up` / `end`."""


def ok(batch: Batch) -> Answer:
    """Stored."""
    return Ack(seq=batch.seq, verdict=AckVerdict.OK, epoch=batch.epoch)


class Collector(CollectorService):
    """Remembers what came over each connection."""

    def __init__(self, answer: Callable[[Batch], Answer] = ok) -> None:
        super().__init__()
        self.answer = answer
        self.hellos: list[Hello] = []
        self.batches: list[list[Batch]] = []

    async def ship(self, stream: ServerStream[ShipRequest, ShipResponse]) -> None:
        first = await stream.receive()
        assert first is not None
        assert first.hello is not None
        self.hellos.append(first.hello)
        batches: list[Batch] = []
        self.batches.append(batches)
        await stream.send(ShipResponse(welcome=Welcome(version="test", max_batch_bytes=1 << 24)))
        while (request := await stream.receive()) is not None:
            assert request.batch is not None
            batches.append(request.batch)
            answer = self.answer(request.batch)
            if answer == "hang up":
                raise Disconnected("tired")
            if answer == "end":
                return
            if isinstance(answer, Ack):
                await stream.send(ShipResponse(ack=answer))
            if isinstance(answer, Attention):
                await stream.send(ShipResponse(attention=answer))

    def seqs(self) -> list[list[int]]:
        """By connection."""
        return [[batch.seq for batch in batches] for batches in self.batches]


async def listening(collector: Collector, port: int = 0) -> GrpcServer:
    server = GrpcServer([collector], port=port)
    await server.start()
    return server
