"""Being woken when a ring fills up, by the kernel."""

import asyncio
import contextlib
import ctypes
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.kernel import Tracing, trace
from infrasight.kernel.alarm import Alarm
from infrasight.kernel.rules import Match, Rules
from infrasight.schema.kinds import ALWAYS, filled_bytes

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
LONG_S = 30.0
OURS = b"infrasight-ours"


@pytest.fixture
def rules() -> Iterator[dict[str, Rules]]:
    """Nobody's opens but ours, whoever else is busy on this machine."""
    set_name = functools.partial(ctypes.CDLL(None).prctl, 15)  # PR_SET_NAME
    before = Path("/proc/thread-self/comm").read_bytes().rstrip(b"\n")
    set_name(OURS)
    yield {"open": Rules(allow=Match(comms=frozenset({OURS})))}
    set_name(before)


async def _waited_s(tracing: Tracing, opens: int, program: str = "") -> float:
    """How long the wait for the alarm takes, at most a second or so, while files are opened, or a program is run. If not, process life is not heard:
    it tells of whoever comes to a new mount namespace on this machine."""
    with tracing.alarm() if opens or program else Alarm(ring.fileno() for ring in tracing.rings if ring.name != ALWAYS) as alarm:
        await asyncio.sleep(0.05)
        await alarm.wait(0)  # of what there is already
        began_s = time.monotonic()
        waiting = asyncio.create_task(alarm.wait(LONG_S if opens or program else 0.3))
        await asyncio.sleep(0)
        for _ in range(opens):
            with contextlib.suppress(FileNotFoundError):
                os.open("/no/such/file", os.O_RDONLY)
        if program:
            await (await asyncio.create_subprocess_exec(program)).wait()
        await waiting
        return time.monotonic() - began_s


@pytest.mark.serial
def test_the_first_record_that_is_awaited_tells(rules: dict[str, Rules]) -> None:
    """Of whatever ring, once; what comes after it does not, nor what nobody waits for."""

    async def once() -> None:
        tracing = await trace(("open",), self_pid=1, rules=rules)
        try:
            for _ in range(3):
                assert await _waited_s(tracing, 0) >= 0.3
                tracing.await_first()
                assert await _waited_s(tracing, 3) < LONG_S / 2
                assert await _waited_s(tracing, 0) >= 0.3
                tracing.await_first()
                assert await _waited_s(tracing, 0, program="/bin/true") < LONG_S / 2, "of process life"
        finally:
            tracing.close()

    asyncio.run(once())


@pytest.mark.serial
def test_a_ring_that_fills_up_tells(rules: dict[str, Rules]) -> None:
    """Each time that it does, and not while it is merely not empty."""

    async def once() -> None:
        tracing = await trace(("open",), self_pid=1, rules=rules)
        try:
            (ring,) = [ring for ring in tracing.rings if ring.name == "open"]
            for _ in range(3):
                for each in tracing.rings:
                    each.take(each.end(), each.size)
                assert await _waited_s(tracing, 0) >= 0.3, "there is next to nothing in it"
                enough = filled_bytes(ring.size) // ring.stride + 20
                assert await _waited_s(tracing, enough) < LONG_S / 2
                assert filled_bytes(ring.size) <= ring.fill() * ring.size < 2 * filled_bytes(ring.size)
                assert await _waited_s(tracing, 0) >= 0.3, "it is not emptied, and was told of"
        finally:
            tracing.close()

    asyncio.run(once())
