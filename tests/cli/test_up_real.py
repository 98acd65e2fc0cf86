"""`infrasight up` with the real kernel, node, server and store, as a person runs it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infrasight.cli.main import main
from tests.waiting import LIMIT_S, eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
INFRASIGHT = [sys.executable, "-m", "infrasight.cli.main"]
NO_PORTS = ["--server-port=0", "--prometheus-port=0", "--server-prometheus-port=0"]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Runs `infrasight up`; what is left of it afterwards is killed."""
    runs: list[subprocess.Popen[str]] = []

    def up(*more: str) -> subprocess.Popen[str]:
        command = [*INFRASIGHT, "up", f"--data-dir={folder}", *NO_PORTS, *more]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ))
        return runs[-1]

    yield up
    for run in runs:
        run.kill()
        run.communicate()


def said(run: subprocess.Popen[str], words: str) -> str:
    """The line on stderr with these words."""
    assert run.stderr is not None
    lines = []
    for line in run.stderr:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError("".join(lines))


def shown(run: subprocess.Popen[str], words: str) -> str:
    """The line on stdout with these words."""
    assert run.stdout is not None
    return next(line for line in run.stdout if words in line)


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ask(sql: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """The answer of the server that `up` runs."""
    capsys.readouterr()
    assert main(["query", sql, "-o", "json", "--server-port", (folder / "server.port").read_text().strip()]) == 0
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


@pytest.mark.serial  # of a flood beside it not all is shown
def test_a_program_is_seen_and_kept_and_infrasight_itself_is_not(
    start: Start, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start()
    said(run, "infrasight: up")
    assert run.stdout is not None
    missing = tmp_path / "no \x1b[31m such program"
    with pytest.raises(FileNotFoundError):
        subprocess.run([missing], check=False)
    line = shown(run, "such program")
    assert line.rstrip("\n").isprintable()
    assert "ENOENT" in line

    family = [run.pid, *children_of(run.pid)]
    assert len(family) == 3
    mine = ",".join(map(str, family))
    (tmp_path / "witness").touch()
    kept = f"SELECT countIf(pid IN ({mine})) AS ours, countIf(endsWith(path, '/witness')) AS theirs FROM open"
    eventually(lambda: int(str(ask(kept, folder, capsys)[0]["theirs"])))
    (count,) = ask(kept, folder, capsys)
    assert (int(str(count["ours"])), int(str(count["theirs"]))) == (0, 1)

    run.send_signal(signal.SIGINT)
    assert run.stdout.read() is not None
    summary = said(run, "infrasight: stored")
    # While other tests run, more can happen than is shown.
    assert re.search(r"stored ([\d,]+ \w+, )*[\d,]+ \w+; lost [\d,]+(; [\d,]+ stored but not shown)?$", summary)
    assert run.wait(60) == 0

    assert main(["query", f"SELECT count() AS n FROM execve WHERE path = '{missing}'", "-o", "json", "--data-dir", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 1}]


def test_killed_it_leaves_nothing_running_and_can_be_started_again(start: Start, folder: Path) -> None:
    run = start("--output=none")
    said(run, "infrasight: up")
    left = [os.pidfd_open(pid) for pid in children_of(run.pid)]
    run.kill()
    again = start("--output=none", "--for=0")
    said(again, "infrasight: stored")
    again.communicate(timeout=60)
    assert again.returncode == 0
    for process in left:  # readable once it has ended
        assert select.select([process], [], [], LIMIT_S)[0]
        os.close(process)


def test_ctrl_c_at_a_terminal_stops_the_node_first(folder: Path) -> None:
    """The terminal's SIGINT goes to the whole foreground group: had the server been in it, it would have stopped before the node."""
    ours, theirs = pty.openpty()
    at_a_terminal = f"import fcntl, os, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv({INFRASIGHT[0]!r}, {INFRASIGHT!r} + ARGV)"
    argv = ["up", f"--data-dir={folder}", "--output=none", *NO_PORTS]
    command = [sys.executable, "-c", f"ARGV = {argv!r}; {at_a_terminal}"]
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environ) as run:
        os.close(theirs)
        screen = os.fdopen(ours, "r+b", buffering=0)
        seen: list[str] = []
        for line in _lines(ours):
            seen.append(line)
            if "infrasight: up" in line:
                screen.write(b"\x03")
        assert run.wait(60) == 0
    screen.close()
    order = [index for index, line in enumerate(seen) if "disconnected" in line or "infrasight: stored" in line or "server stopped" in line]
    assert len(order) == 3, seen
    assert "disconnected" in seen[order[0]]
    assert "server stopped" in seen[order[2]]


def _lines(terminal: int) -> Iterator[str]:
    rest = b""
    while True:
        try:
            rest += os.read(terminal, 4096)
        except OSError:  # nobody has the other side any more
            return
        *lines, rest = rest.split(b"\n")
        yield from (line.decode() for line in lines)


def test_a_port_that_is_taken_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["up", f"--data-dir={folder}", f"--server-port={port}", "--server-prometheus-port=0", "--quiet"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("infrasight: server: ")
    assert line.count("\n") == 1
    assert str(port) in line
