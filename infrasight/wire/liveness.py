"""Whether the other side is still there. TCP alone takes a quarter of an hour to see that it, or the way there, is no more, and never sees a process
that hangs."""

from __future__ import annotations

import asyncio

from grpclib.config import Configuration
from grpclib.protocol import H2Protocol

ASKED_EVERY_S = 10.0
"""How often the other side of a call is asked with an HTTP/2 ping. The server asks its clients too: it must know which nodes are there."""
ANSWERS_WITHIN_S = 20.0
"""Who does not answer by then is gone. The question waits behind what is being sent, so a slow line must have time for that."""


def asking(connection_window: int, stream_window: int) -> Configuration:
    """For one side of a connection; the windows are the bytes that the other side may send before they are read."""
    return Configuration(
        _keepalive_time=ASKED_EVERY_S,
        _keepalive_timeout=ANSWERS_WITHIN_S,
        _http2_max_pings_without_data=0,
        _http2_min_sent_ping_interval_without_data=ASKED_EVERY_S / 2,
        http2_connection_window_size=connection_window,
        http2_stream_window_size=stream_window,
    )


def give_up_when_silent(protocol: H2Protocol, transport: asyncio.BaseTransport) -> None:
    """grpclib closes a connection whose other side does not answer, and a transport that is closed first sends all it has: to nobody, for ever."""
    connection, close = protocol.connection, protocol.connection.close

    def hang_up() -> None:
        timer = connection._close_by_ping_handler
        if timer is not None and timer.when() <= asyncio.get_running_loop().time() and isinstance(transport, asyncio.Transport):
            transport.abort()
        close()

    connection.close = hang_up  # type: ignore[method-assign]  # what its timer calls; tests/node/delivery proves that it works
