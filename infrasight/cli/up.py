"""`infrasight up`: node and server on this machine, as supervised children, and events on the screen."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from infrasight.actors import on_stop_signals
from infrasight.cli import programs
from infrasight.cli.ask import client_of
from infrasight.cli.children import Child
from infrasight.cli.directory import claimed, default_directory
from infrasight.cli.events import kinds_of
from infrasight.cli.options import Reach, Show, UpOptions
from infrasight.cli.screen import Screen
from infrasight.cli.summary import summary
from infrasight.cli.together import together
from infrasight.errors import InfraSightError, SettingsError, WireError
from infrasight.present.safe import printable

SHOWN_PER_S = 250
"""Events a second that are shown, as many at once after a quiet second. A person cannot read more, and showing an event takes 0.1 ms, 50 times what
storing it does: that must not take the machine from storing. `infrasight events --follow` has no such bound."""
PRECEDENCE = {"INFRASIGHT_NICE": "-10"}
"""Over the rest of the machine, for the server too: while it does not store, the node cannot go on reading, and events are lost."""
_AGAIN_AFTER_S = 0.2


def run(options: UpOptions) -> int:
    """Run everything until Ctrl-C, SIGTERM, or the time is over; the exit status."""
    if options.probes:
        _check_probes(options.probes)
    directory = (options.data_dir or default_directory()).absolute()
    with claimed(directory) as lent:
        return asyncio.run(_up(options, directory, lent))


async def _up(options: UpOptions, directory: Path, lent: int) -> int:
    return await Up(options, directory, lent).run()


def _check_probes(names: tuple[str, ...]) -> None:
    from infrasight.schema import PROBES  # brings pyarrow along

    for name in names:
        if name not in PROBES:
            raise SettingsError(f"--probes: {name!r} is none of {', '.join(PROBES)}")


class Up:
    """One run. Started downstream first (server, node), stopped upstream first, so that what was seen is stored.

    Made inside an event loop. `lent` is the file descriptor by which the children keep the claim on `directory`.
    """

    def __init__(self, options: UpOptions, directory: Path, lent: int) -> None:
        self._options = options
        self._port_file = directory / "server.port"
        server = programs.server(
            directory,
            self._port_file,
            environ=PRECEDENCE | os.environ,
            port=options.server_port,
            prometheus_port=options.server_prometheus_port,
            keep_days=options.keep_days,
            keep=options.keep,
            lent=[lent],
        )
        node = programs.node(
            lambda: programs.port_in(self._port_file),
            environ=os.environ,
            family=os.getpid(),
            prometheus_port=options.prometheus_port,
            interval_s=options.interval_s,
            probes=options.probes,
            config=options.config,
            directory=directory,
            lent=[lent],
        )
        self._server, self._node = Child(server, self._say), Child(node, self._say)
        self._asked = self._aborted = False
        self._until = asyncio.timeout(None)
        self._ending = False
        self._watching = asyncio.Event()
        self._not_shown = 0

    async def run(self) -> int:
        """The exit status. ChildFailed when a child does not start, or ends too often."""
        self._port_file.unlink(missing_ok=True)
        on_stop_signals(self._end, self._end_at_once, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        began_ns = time.time_ns()
        async with together() as tasks:
            await self._until_stopped(tasks)
            await self._node.stop()
            if self._server.ready.is_set():
                _tell(f"infrasight: {await self._summary(began_ns)}")
            await self._server.stop()
        return 130 if self._aborted else 0

    async def _until_stopped(self, tasks: asyncio.TaskGroup) -> None:
        """Start, and show events until a signal, until the time is over, or until nobody reads them any more."""
        try:
            async with self._until:
                await self._start(tasks, self._server)
                async with together() as views:
                    views.create_task(self._watch(), name="up.watch")
                    await self._watching.wait()  # so that the node's first events are shown
                    await self._start(tasks, self._node)
                    self._is_up()
        except TimeoutError:
            if not self._until.expired():
                raise
        except BrokenPipeError:
            pass
        finally:
            self._ending = True

    @staticmethod
    async def _start(tasks: asyncio.TaskGroup, child: Child) -> None:
        tasks.create_task(child.run(), name=child.program.name)
        await child.ready.wait()

    def _is_up(self) -> None:
        self._say("infrasight", f"up, server on {self._reach.server_addr}:{self._reach.server_port}; Ctrl-C to stop")
        if self._options.for_s is not None and not self._asked:
            self._until.reschedule(asyncio.get_running_loop().time() + self._options.for_s)

    async def _watch(self) -> None:
        """Show events for ever. A server that is restarted is asked again."""
        if self._options.output is Show.NONE:
            self._watching.set()
            await asyncio.Event().wait()
        screen = Screen(json=self._options.output is Show.JSON, trunc=self._options.trunc)
        while True:
            with contextlib.suppress(WireError):
                await self._show(screen)
            await asyncio.sleep(_AGAIN_AFTER_S)
            await self._server.ready.wait()

    async def _show(self, screen: Screen) -> None:
        kinds = [kind.name for kind in kinds_of(())]
        async with client_of(self._reach) as client, client.subscribe(kinds=kinds, max_rate_per_s=SHOWN_PER_S) as events:
            self._watching.set()
            try:
                await screen.show(events)
            finally:
                self._not_shown += events.dropped

    async def _summary(self, began_ns: int) -> str:
        """What this run stored and lost. Why it cannot be said is no reason to fail at the end."""
        try:
            async with asyncio.timeout(10), client_of(self._reach) as client:
                said = await summary(client, began_ns)
        except (TimeoutError, InfraSightError) as error:
            return f"what was stored cannot be said: {error or 'the server does not answer'}"
        return said + (f"; {self._not_shown:,} stored but not shown" if self._not_shown else "")

    @property
    def _reach(self) -> Reach:
        return Reach(programs.LOOPBACK, programs.port_in(self._port_file))

    def _end(self) -> None:
        """End the run in good order."""
        self._asked = True
        if not self._ending:
            self._until.reschedule(asyncio.get_running_loop().time())

    def _end_at_once(self) -> None:
        self._aborted = True
        for child in (self._node, self._server):
            child.signal(signal.SIGKILL)

    def _say(self, name: str, line: str) -> None:
        """Pass on what a child, or we, have to tell."""
        if not self._options.quiet:
            _tell(f"{name}: {printable(line)}")


def _tell(line: str) -> None:
    """A line on stderr; a terminal that is gone must not keep us from ending in good order."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
