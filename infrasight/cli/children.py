"""A child process that is kept running: started, watched until ready, restarted when it ends unasked, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from infrasight.actors.restarts import RestartBudget, RestartPolicy
from infrasight.errors import ChildFailed

POLICY = RestartPolicy(budget=5, within_s=60.0, backoff_s=0.2, backoff_max_s=5.0)
"""A crash is mended at once; what crashes every time is given up within seconds and not hidden."""
STOP_WITHIN_S = 30.0
"""What a node may take to drain and a server to store it; SIGKILL afterwards."""
_LINE_BYTES = 1 << 16
_PREFIX = re.compile(r"^([\d-]+ [\d:,]+ [A-Z]+ )?((python -m )?infrasight[. ]\w+: )?")
"""What logs and argparse put before what matters."""


@dataclass(frozen=True)
class Program:
    """What to run: `python -m module arguments`, ready once a line on its stderr has `ready` in it.

    `arguments` are asked for at each start. `lent` are file descriptors that the child gets under the same numbers.
    """

    name: str
    module: str
    arguments: Callable[[], Sequence[str]]
    ready: str
    environ: Mapping[str, str]
    lent: tuple[int, ...] = ()


class Child:
    """One program, kept running by `run`.

    | question        | answer |
    |-----------------|--------|
    | ends unasked?   | before it was ever ready: ChildFailed at once; later: started again after a backoff, ChildFailed over the budget |
    | Ctrl-C?         | its own session: a terminal's signals do not reach it |
    | we are killed?  | the kernel sends it SIGTERM |
    | run cancelled?  | it gets SIGTERM, and SIGKILL when that takes longer than `STOP_WITHIN_S` |
    | stderr?         | line by line to `say`, the last line into ChildFailed; stdout goes nowhere |
    """

    def __init__(self, program: Program, say: Callable[[str, str], None], policy: RestartPolicy = POLICY) -> None:
        """`say(name, line)` is told every line of its stderr and what happens to it."""
        self.program = program
        self.ready = asyncio.Event()
        """Set while it is up and has said so."""
        self.starts = 0
        self._say = say
        self._budget = RestartBudget(policy)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._last_line = ""
        self._was_ready = False

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def run(self) -> None:
        """Keep it running until `stop`. Raises ChildFailed."""
        while not self._stopping.is_set():
            code = await self._once()
            if self._stopping.is_set():
                return
            backoff_s = self._budget.spend(asyncio.get_running_loop().time()) if self._was_ready else None
            if backoff_s is None:
                raise ChildFailed(self.program.name, self._reason(code))
            self._say(self.program.name, f"{_how_it_ended(code)}; starting it again in {backoff_s:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)

    async def stop(self, within_s: float = STOP_WITHIN_S) -> None:
        """End it with SIGTERM, after `within_s` with SIGKILL, and wait for it. Legal before start and twice."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), within_s)
        except TimeoutError:
            self._say(self.program.name, f"did not end within {within_s:g} s; killed")
            self.signal(signal.SIGKILL)
            await process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _reason(self, code: int) -> str:
        """Its own last words, when it ended by itself."""
        return _PREFIX.sub("", self._last_line) if code >= 0 and self._last_line else _how_it_ended(code)

    async def _once(self) -> int:
        process = self._process = await self._start()
        if self._stopping.is_set():  # asked while it was being started
            self.signal(signal.SIGTERM)
        try:
            await self._listen(process)
            return await process.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise
        finally:
            self.ready.clear()

    async def _start(self) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "infrasight.cli.child", str(os.getpid()), self.program.module, *self.program.arguments()]
        self.starts += 1
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            limit=_LINE_BYTES,
            env=dict(self.program.environ),
            pass_fds=self.program.lent,
            start_new_session=True,  # its own share of the processor too, where the kernel groups by session
        )

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        """Read stderr to its end."""
        assert process.stderr is not None  # it was asked for
        while True:
            try:
                raw = await process.stderr.readline()
            except ValueError:  # longer than the limit: that line is dropped
                continue
            if not raw:
                return
            line = raw.decode("utf-8", "backslashreplace").strip()
            if not line:
                continue
            self._last_line = line
            self._say(self.program.name, line)
            if self.program.ready in line:
                self._was_ready = True
                self.ready.set()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
