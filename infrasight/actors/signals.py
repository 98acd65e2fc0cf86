"""Being asked to stop: by SIGINT or SIGTERM, the first time gently, the second time at once."""

import asyncio
import signal
from collections.abc import Callable, Iterable

SAME_ASK_S = 1.0
"""A second signal so soon after the first is the same ask: timeout(1), for one, signals a process and then its group."""


def on_stop_signals(
    gently: Callable[[], None], at_once: Callable[[], None], numbers: Iterable[signal.Signals] = (signal.SIGINT, signal.SIGTERM)
) -> None:
    """From now on call `gently` on the first signal, and `at_once` on each later one. To be called in a running event loop, of the main thread."""
    loop = asyncio.get_running_loop()
    first_s: float | None = None

    def asked() -> None:
        nonlocal first_s
        if first_s is None:
            first_s = loop.time()
            gently()
        elif loop.time() - first_s >= SAME_ASK_S:
            at_once()

    for number in numbers:
        loop.add_signal_handler(number, asked)
