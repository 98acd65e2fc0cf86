"""One server's life: open the store, listen, work, and on the first signal stop taking, store what was taken, answer, close."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from infrasight.actors import Supervisor, on_stop_signals, take_precedence
from infrasight.errors import CannotListen, InfraSightError
from infrasight.metrics import serve as serve_metrics
from infrasight.schema.arrow import without_pandas
from infrasight.server.access import admission
from infrasight.server.graph import Server
from infrasight.server.measures import samples
from infrasight.server.settings import Settings
from infrasight.settings import parse
from infrasight.store import Retention, Store, open_store
from infrasight.wire.server import GrpcServer

log = logging.getLogger("infrasight.server")
PROG = "python -m infrasight.server"


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set, then drain. Raises InfraSightError when the server cannot start or cannot go on."""
    if settings.nice is not None:
        take_precedence(settings.nice)  # before the store starts its threads
    tls, access = admission(settings)
    store = open_store(settings.store, Retention.of(settings.keep_days, settings.keep))
    server = Server(store, ingest_bytes=settings.ingest_bytes, decoding_bytes=settings.decoding_bytes, patience_s=settings.store_patience_s)
    address = settings.server_addr, settings.server_port
    grpc = GrpcServer(server.services, *address, insecure_listen=settings.insecure_listen, tls=tls, access=access, limits=settings.limits())
    supervisor = Supervisor(server.graph)
    async with _opened(store):
        try:
            port = await grpc.start()
            async with serve_metrics(settings.prometheus_port, lambda: samples(server, supervisor.crashes)):
                _write_port(settings.port_file, port)
                log.info("infrasight server ready on %s:%d, store %s", settings.server_addr, port, settings.store)
                await _work(grpc, supervisor, stop, settings.drain_timeout_s)
        finally:
            await grpc.close()


async def _work(grpc: GrpcServer, supervisor: Supervisor, stop: asyncio.Event, drain_timeout_s: float) -> None:
    """Run the graph until `stop`, then drain. ActorFailed when it ends by itself."""
    try:
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(supervisor.run(), name="server graph")
            waiting = tasks.create_task(stop.wait(), name="stop")
            await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            await _drain(grpc, supervisor, drain_timeout_s)
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]  # the graph's: nothing else here can fail
        raise first from first.__cause__


async def _drain(grpc: GrpcServer, supervisor: Supervisor, timeout_s: float) -> None:
    """Within `timeout_s`: take nothing more, store what was taken, send its acks."""
    deadline = time.monotonic() + timeout_s
    log.info("stopping: storing what was accepted, for up to %g s", timeout_s)
    grpc.stop_accepting()
    stored = await supervisor.stop(timeout_s)
    answered = await grpc.drained(max(0.1, deadline - time.monotonic()))
    log.info("infrasight server stopped%s", "" if stored and answered else ", not all of what came was stored: nodes will send it again")


@asynccontextmanager
async def _opened(store: Store) -> AsyncIterator[None]:
    await store.open()
    try:
        yield
    finally:
        await store.close()


def _write_port(file: Path | None, port: int) -> None:
    """Write `port` to `file` so that a reader sees all of it or nothing."""
    if file is None:
        return
    try:
        scratch = file.with_name(f".{file.name}.{os.getpid()}")
        scratch.write_text(f"{port}\n")
        scratch.replace(file)
    except OSError as error:
        raise CannotListen(f"cannot write the port to {file}: {error.strerror}") from None


async def _until_signalled(settings: Settings) -> None:
    """`serve` until SIGTERM or SIGINT; a second one ends the process at once."""
    stop = asyncio.Event()

    def abort() -> None:
        log.warning("a second signal: aborting, what is not stored yet will be sent again by its node")
        os._exit(130)

    on_stop_signals(stop.set, abort)
    await serve(settings, stop)


def main(argv: Sequence[str] | None = None) -> int:
    """The program: 0 after a clean stop, 1 with one line when the server cannot run, 2 for bad options."""
    settings = parse(Settings, argv, prog=PROG, description="Takes events from nodes, stores them and answers questions about them.")
    without_pandas()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_signalled(settings))
    except InfraSightError as error:
        log.error("infrasight server: %s", " ".join(str(error).split()))
        return 1
    return 0
