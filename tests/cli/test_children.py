"""Children are kept running, stopped in good order, and never left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from infrasight.actors.restarts import RestartPolicy
from infrasight.cli.children import Child, Program
from infrasight.errors import ChildFailed
from tests.waiting import LIMIT_S

QUICK = RestartPolicy(budget=2, within_s=60, backoff_s=0.01, backoff_max_s=0.01)
SERVES = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("it is ready", sys.argv[1:], file=sys.stderr, flush=True)
signal.pause()
"""
DEAF = SERVES.replace("lambda *_: sys.exit(0)", "signal.SIG_IGN") + "\nwhile True: signal.pause()\n"
FAILS = "import sys; print('starting', file=sys.stderr); sys.exit('2026-01-01 10:00:00,123 ERROR infrasight server: the port is taken')"
MakeChild = Callable[..., Child]


@pytest.fixture
def said() -> list[str]:
    """What children said."""
    return []


@pytest.fixture
def child_of(tmp_path: Path, said: list[str]) -> Iterator[MakeChild]:
    """Makes a child that runs a module with the given source; none is left afterwards."""
    made: list[Child] = []

    def make(source: str, hears: Callable[[str], object] = lambda _line: None) -> Child:
        def say(_name: str, line: str) -> None:
            said.append(line)
            hears(line)

        (tmp_path / "workload.py").write_text(source)
        environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
        program = Program("workload", "workload", lambda: ["a", "b"], "is ready", environ)
        made.append(Child(program, say, QUICK))
        return made[-1]

    yield make
    for child in made:
        if child.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)


async def test_start_and_stop(child_of: MakeChild, said: list[str]) -> None:
    child = child_of(SERVES)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(child.run())
        await child.ready.wait()
        assert child.pid is not None
        assert os.getpgid(child.pid) == os.getsid(child.pid) == child.pid
        await child.stop()
        await running
    assert child.pid is None
    assert not child.ready.is_set()
    assert said == ["it is ready ['a', 'b']"]
    await child.stop()


async def test_stop_before_start_starts_nothing(child_of: MakeChild) -> None:
    child = child_of(SERVES)
    await child.stop()
    await child.run()
    assert child.starts == 0


async def test_a_child_that_does_not_start_is_given_up_at_once_with_its_own_words(child_of: MakeChild) -> None:
    child = child_of(FAILS)
    with pytest.raises(ChildFailed, match=r"^workload: the port is taken$"):
        await child.run()
    assert child.starts == 1


async def test_a_child_that_was_ready_is_started_again_within_its_budget(child_of: MakeChild, said: list[str]) -> None:
    child = child_of(SERVES, hears=lambda line: child.signal(signal.SIGKILL) if "is ready" in line else None)
    with pytest.raises(ChildFailed, match="workload: ended by SIGKILL"):
        await child.run()
    assert child.starts == 3
    assert sum("starting it again" in line for line in said) == 2


async def test_a_deaf_child_is_killed(child_of: MakeChild, said: list[str]) -> None:
    child = child_of(DEAF)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.run())
        await child.ready.wait()
        await child.stop(within_s=0.05)
    assert child.pid is None
    assert "killed" in said[-1]


async def test_a_cancelled_run_takes_the_child_along(child_of: MakeChild) -> None:
    child = child_of(SERVES)
    running = asyncio.create_task(child.run())
    await child.ready.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert child.pid is None


async def test_endless_lines_and_bytes_that_are_no_text(child_of: MakeChild, said: list[str]) -> None:
    child = child_of("import sys; sys.stderr.buffer.write(b'x' * 200_000 + b'\\n\\xff\\n'); sys.stderr.flush()\n" + SERVES)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(child.run())
        await child.ready.wait()
        await child.stop()
    assert "\\xff" in said
    assert all(len(line) < 200_000 for line in said)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    """The parent is killed, and the child's end is seen at a pipe that only the child holds."""
    (tmp_path / "workload.py").write_text(SERVES)
    ours, theirs = os.pipe()
    parent = f"""
import os, subprocess, sys
command = [sys.executable, "-m", "infrasight.cli.child", str(os.getpid()), "workload"]
child = subprocess.Popen(command, pass_fds=[{theirs}], stderr=subprocess.PIPE, process_group=0)
os.close({theirs})
print(child.pid if b"ready" in child.stderr.readline() else "broken", flush=True)
child.wait()
"""
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    with subprocess.Popen([sys.executable, "-c", parent], pass_fds=[theirs], stdout=subprocess.PIPE, env=environ) as process:
        os.close(theirs)
        assert process.stdout is not None
        assert int(process.stdout.readline()) > 0
        process.send_signal(number)
        assert os.read(ours, 1) == b""  # end of file: nobody holds the other end
    os.close(ours)


def test_a_child_whose_parent_is_gone_before_it_begins_ends(tmp_path: Path) -> None:
    (tmp_path / "workload.py").write_text("print('it ran')")
    command = [sys.executable, "-m", "infrasight.cli.child", "1", "workload"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    done = subprocess.run(command, capture_output=True, env=environ, timeout=LIMIT_S, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
