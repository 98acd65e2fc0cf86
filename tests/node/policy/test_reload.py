"""A node on the real kernel whose configuration changes while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import workloads
from tests.waiting import eventually

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "gcc")]
OPENS = 20_011


class Running:
    """`python -m infrasight.node --output json` with a configuration file."""

    def __init__(self, folder: Path, config: str) -> None:
        self.config, self._out, self._err = folder / "node.toml", folder / "events", folder / "said"
        self.config.write_text(config)
        command = [sys.executable, "-m", "infrasight.node", "--output=json", "--prometheus-port=0", f"--config={self.config}"]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self.process = subprocess.Popen(command, stdout=self._out.open("wb"), stderr=self._err.open("wb"), env=environ)
        self.wait(lambda: "node ready" in self.said())

    def said(self) -> str:
        return self._err.read_text()

    def wait(self, true: Callable[[], object]) -> None:
        """Until it is so, or the node has ended."""
        eventually(lambda: true() or self.process.poll() is not None, said=self.said)
        assert self.process.poll() is None, self.said()

    def reload(self, config: str, answer: str) -> None:
        """Change the file, send SIGHUP, and wait for what the node says to it."""
        times = self.said().count(answer)
        self.config.write_text(config)
        self.process.send_signal(signal.SIGHUP)
        self.wait(lambda: self.said().count(answer) > times)

    def events(self, kind: str, folder: Path) -> list[dict[str, Any]]:
        """Those of one kind below a folder, until now."""
        rows = [json.loads(line) for line in self._out.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [row for row in rows if row["kind"] == kind and row["path"].startswith(f"{folder}/")]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Running]]:
    nodes: list[Running] = []

    def run(config: str) -> Running:
        (tmp_path / "node").mkdir()
        nodes.append(Running(tmp_path / "node", config))
        return nodes[-1]

    yield run
    for node in nodes:
        node.process.kill()
        node.process.wait()


READ_AGAIN = "configuration read again"


def test_probes_come_and_go_and_the_others_lose_nothing(start: Callable[[str], Running], tmp_path: Path) -> None:
    node = start('probes = ["open"]')
    work = tmp_path / "work"
    work.mkdir()
    busy = subprocess.Popen([workloads.build("opens"), "--dir", work, "--absent", "--count", str(OPENS), "--rate", "8000"], stdout=subprocess.PIPE)
    for turn in range(4):
        node.reload('probes = ["open", "mkdir"]', f"{READ_AGAIN}: open, process, mkdir")
        (work / f"seen{turn}").mkdir()
        node.wait(lambda turn=turn: len(node.events("mkdir", work)) == turn + 1)  # type: ignore[misc]
        node.reload('probes = ["open"]', f"{READ_AGAIN}: open, process\n")
        (work / f"unseen{turn}").mkdir()
    busy.communicate(timeout=60)
    node.wait(lambda: len(node.events("open", work)) >= OPENS)
    assert len(node.events("open", work)) == OPENS
    assert [row["path"] for row in node.events("mkdir", work)] == [f"{work}/seen{turn}" for turn in range(4)]


def test_filters_change(start: Callable[[str], Running], tmp_path: Path) -> None:
    node = start("")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()

    def touch(name: str) -> None:
        (tmp_path / "one" / name).touch()
        (tmp_path / "two" / name).touch()

    def names(folder: str) -> list[str]:
        return [Path(row["path"]).name for row in node.events("open", tmp_path / folder)]

    touch("a")
    node.reload(f'[deny]\npath = ["{tmp_path}/one"]', READ_AGAIN)
    touch("b")
    node.reload(f'[allow]\npath = ["{tmp_path}/one"]', READ_AGAIN)
    touch("c")
    node.reload("", READ_AGAIN)
    touch("d")
    node.wait(lambda: "d" in names("two"))
    assert (names("one"), names("two")) == (["a", "c", "d"], ["a", "b", "d"])


def test_a_file_with_a_mistake_changes_nothing(start: Callable[[str], Running], tmp_path: Path) -> None:
    node = start('probes = ["mkdir"]')
    node.reload('probes = ["mkdri"]', "the configuration stays as it was: ")
    line = node.said().splitlines()[-1]
    assert f"{node.config}: probes" in line
    assert "mkdir" in line
    node.config.unlink()
    node.process.send_signal(signal.SIGHUP)
    node.wait(lambda: node.said().count("the configuration stays as it was: ") == 2)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "seen").mkdir()
    node.wait(lambda: node.events("mkdir", tmp_path / "work"))


def test_without_a_file_there_is_nothing_to_read(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infrasight.node", "--output=none", "--prometheus-port=0", "--probes=open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as node:
        assert node.stderr is not None
        assert "node ready" in node.stderr.readline()
        node.send_signal(signal.SIGHUP)
        assert "started without --config" in node.stderr.readline()
        node.send_signal(signal.SIGINT)
        assert node.wait(60) == 0


def test_redaction_changes(start: Callable[[str], Running], tmp_path: Path) -> None:
    node = start('probes = ["execve"]')
    tool = tmp_path / "work" / "tool"
    tool.parent.mkdir()
    tool.symlink_to("/bin/true")

    def told() -> list[tuple[list[str], bool]]:
        before = len(node.events("execve", tool.parent))
        subprocess.run([tool, "--token", "hunter2", "corp-1"], check=True)
        node.wait(lambda: len(node.events("execve", tool.parent)) > before)
        return [(row["argv"][1:], row["redacted"]) for row in node.events("execve", tool.parent)[before:]]

    assert told() == [(["--token", "***", "corp-1"], True)]
    node.reload("redaction.patterns = ['corp-[0-9]']\nprobes = ['execve']", READ_AGAIN)
    assert told() == [(["--token", "***", "***"], True)]
    node.reload("redaction.patterns = ['corp-[0-9']\nprobes = ['execve']", "the configuration stays as it was: ")
    assert f"{node.config}: redaction.patterns: 'corp-[0-9': missing ]" in node.said().splitlines()[-1]
    assert told() == [(["--token", "***", "***"], True)]
    node.reload("redaction.keep = ['hunter.']\nprobes = ['execve']", READ_AGAIN)
    assert told() == [(["--token", "hunter2", "corp-1"], False)]
    node.reload("redaction.enabled = false\nprobes = ['execve']", "execve, process, nothing masked")
    assert told() == [(["--token", "hunter2", "corp-1"], False)]
