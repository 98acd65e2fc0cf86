"""Stands in for `infrasight.server`: real gRPC, one event for each subscriber, counts made up.

What befalls it goes into the file `log` beside the port file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from infrasight.schema import PROBES
from infrasight.wire import Event, QueryResponse, SubscribeResponse
from infrasight.wire._generated.query.infrasight.v1 import Open
from infrasight.wire.server import GrpcServer
from infrasight.wire.service import ServerStream
from tests.cli.stub import Stub

ROWS = [{"kind": name, "events": 1009} for name in PROBES] + [{"kind": "lost", "events": 3}]


class Endless(Stub):
    """Its subscriptions do not end."""

    async def subscribe(self, stream: ServerStream[Any, Any]) -> None:
        await stream.request()
        await stream.send(SubscribeResponse())
        await stream.send(SubscribeResponse(events=[Event(open=Open(ts=1, node="box", path="/seen"))]))
        await asyncio.Event().wait()

    async def query(self, stream: ServerStream[Any, Any]) -> None:
        await stream.request()
        await stream.send(QueryResponse(chunk="\n".join(map(json.dumps, ROWS)).encode()))


async def serve(flags: dict[str, str]) -> None:
    port_file = Path(flags["--port-file"])
    if "refuses" in os.environ.get("FAKE_SERVER", ""):
        sys.exit("infrasight server: the store is locked")
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    server = GrpcServer([Endless()], port=int(flags["--server-port"]))
    port = await server.start()
    with port_file.open("w") as file, (port_file.parent / "log").open("a") as log:  # noqa: ASYNC230 - nobody waits for this loop
        file.write(f"{port}\n")
        file.close()
        log.write(f"server {server.port} {os.getpid()}\n")
        log.flush()
        sys.stderr.write("infrasight server ready\n")
        await stopped.wait()
        log.write("server stopped\n")
    await server.close()


asyncio.run(serve(dict(flag.split("=", 1) for flag in sys.argv[1:])))
