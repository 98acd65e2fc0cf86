"""`infrasight up` with a server and a node that stand in for the real ones: what is started, shown, restarted and stopped, and in which order.

tests/e2e has it with the real ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from infrasight.cli import programs, up
from infrasight.cli.main import main
from infrasight.cli.options import Show, Span, UpOptions
from infrasight.errors import ChildFailed
from infrasight.schema import PROBES

OPTIONS = UpOptions(server_port=0, output=Show.COMPACT)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def standing_in(make: Callable[..., programs.Program], module: str) -> Callable[..., programs.Program]:
        return lambda *args, **more: dataclasses.replace(make(*args, **more), module=module)

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    for name in ("server", "node"):
        monkeypatch.setattr(programs, name, standing_in(getattr(programs, name), f"tests.cli.fake_{name}"))


def log_of(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


class Watched:
    """A run of `up`, and a way to wait for what it says on either stream."""

    def __init__(self, options: UpOptions, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        monkeypatch.setattr(up, "_tell", self._hear)
        monkeypatch.setattr("infrasight.cli.screen.write", lambda lines: [self._loop.call_soon_threadsafe(self._hear, line) for line in lines])
        self.run = asyncio.create_task(up.Up(options, folder, os.open("/dev/null", os.O_RDONLY)).run())

    def _hear(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def says(self, words: str, times: int = 1) -> str:
        """The line with these words, once it has been said so many times. Fails when the run ends first."""
        while len(found := [line for line in self.lines if words in line]) < times:
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            await asyncio.wait([news, self.run], return_when=asyncio.FIRST_COMPLETED)
            news.cancel()
            assert not self.run.done(), self.lines
        return found[-1]


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @asynccontextmanager
    async def start(**more: Any) -> AsyncIterator[Watched]:
        started = Watched(dataclasses.replace(OPTIONS, **more), tmp_path, monkeypatch)
        try:
            yield started
        finally:
            started.run.cancel()
            await asyncio.gather(started.run, return_exceptions=True)

    return start


async def test_events_are_shown_until_ctrl_c_and_then_all_ends_in_order(watched: Callable[..., Any], tmp_path: Path) -> None:
    async with watched(probes=("open",), prometheus_port=0, interval_s=2.5) as run:
        await run.says("/seen")
        await run.says("infrasight: up")
        port = int((tmp_path / "server.port").read_text())
        os.kill(os.getpid(), signal.SIGINT)
        assert await run.run == 0
    started, told, *ended = log_of(tmp_path)
    assert started.startswith(f"server {port} ")
    flags = f"--output=server --server-addr=127.0.0.1 --server-port={port} --prometheus-port=0 --interval-s=2.5"
    flags += f" --spool-dir={tmp_path / 'spool'} --probes=open"
    assert told == f"node {flags} family {os.getpid()}"
    assert ended == ["node stopped", "server stopped"]
    assert run.lines[-1] != ""
    (summary,) = (line for line in run.lines if "stored 1,009" in line)
    stored = ", ".join(f"1,009 {probe}" for probe in PROBES)
    assert summary == f"infrasight: stored {stored}; lost 3"


async def test_the_time_ends_it(watched: Callable[..., Any], tmp_path: Path) -> None:
    async with watched(for_s=Span("0"), output=Show.NONE) as run:
        assert await run.run == 0
    assert log_of(tmp_path)[-2:] == ["node stopped", "server stopped"]
    assert not any("/seen" in line for line in run.lines)


async def test_quiet_tells_the_summary_only(watched: Callable[..., Any]) -> None:
    async with watched(for_s=Span("0"), output=Show.NONE, quiet=True) as run:
        await run.run
    (line,) = run.lines
    assert "stored" in line


async def test_a_killed_server_comes_back_at_the_same_port_and_is_asked_again(watched: Callable[..., Any], tmp_path: Path) -> None:
    async with watched() as run:
        await run.says("/seen")
        os.kill(int(log_of(tmp_path)[0].split()[2]), signal.SIGKILL)
        await run.says("/seen", times=2)
        await run.says("infrasight: up")
        os.kill(os.getpid(), signal.SIGTERM)
        assert await run.run == 0
    first, second = (line.split()[1] for line in log_of(tmp_path) if line.startswith("server ") and "stopped" not in line)
    assert first == second


async def test_nobody_reads_any_more(watched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(_lines: object) -> None:
        raise BrokenPipeError

    async with watched() as run:
        monkeypatch.setattr("infrasight.cli.screen.write", nobody)
        assert await run.run == 0
    log = log_of(tmp_path)
    assert log[-1] == "server stopped"
    assert ("node stopped" in log) == any(line.startswith("node --") for line in log), "it may not even have been started"


@pytest.mark.parametrize(("variable", "said"), [("FAKE_SERVER", "server: the store is locked"), ("FAKE_NODE", "node: only root can trace")])
async def test_a_child_that_does_not_start_ends_everything(
    variable: str, said: str, watched: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "refuses")
    async with watched() as run:
        with pytest.raises(ChildFailed) as failure:
            await run.run
    assert str(failure.value) == said
    if variable == "FAKE_NODE":
        assert log_of(tmp_path)[-1] == "server stopped"


def test_one_line_for_a_child_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FAKE_SERVER", "refuses")
    assert main(["up", "--data-dir", str(tmp_path), "--server-port", "0", "--quiet"]) == 1
    assert capsys.readouterr().err == "infrasight: server: the store is locked\n"


def test_a_directory_in_use_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with up.claimed(tmp_path):
        assert main(["up", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"infrasight: {tmp_path} is in use by another `infrasight up`\n"


def test_a_question_to_a_directory_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    assert main(["query", "SELECT 1", "-o", "json", "--data-dir", str(tmp_path)]) == 0
    assert '"kind": "lost"' in capsys.readouterr().out


def test_a_question_to_a_directory_without_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "SELECT 1", "--data-dir", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"infrasight: {tmp_path} holds no events\n"


def test_how_long_rows_are_kept_is_for_the_server_to_know(tmp_path: Path) -> None:
    def told(**more: Any) -> list[str]:
        return [each for each in programs.server(tmp_path, tmp_path / "port", environ={}, **more).arguments() if each.startswith("--keep")]

    assert told(keep_days=7, keep=("open=1", "execve=0")) == ["--keep-days=7", "--keep=open=1,execve=0"]
    assert told() == []
