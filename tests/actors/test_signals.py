"""What a first and a second signal mean."""

import asyncio
import os
import signal

import pytest

from infrasight.actors import on_stop_signals, signals


async def test_the_second_signal_is_another_ask_only_later(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue(8)
    now = [100.0]
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now[0])
    try:
        on_stop_signals(lambda: heard.put_nowait("gently"), lambda: heard.put_nowait("at once"), (signal.SIGUSR1, signal.SIGUSR2))
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await heard.get() == "gently"
        now[0] += signals.SAME_ASK_S / 2
        os.kill(os.getpid(), signal.SIGUSR2)
        for _ in range(20):  # turns of the loop, in which a signal is heard
            await asyncio.sleep(0)
        now[0] += signals.SAME_ASK_S
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await heard.get() == "at once"
        assert heard.empty()
    finally:
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            asyncio.get_running_loop().remove_signal_handler(number)
