"""A runtime that hangs while its containers begin: what they did is stored at once, and completed in the store when it tells."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.containerd import IMAGE, Containerd
from tests.e2e.held import Held
from tests.e2e.system import System
from tests.waiting import LIMIT_S, eventually

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.serial,
    pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "cgroup2", "containerd", "busybox"),
]


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd() as running:
        yield running


def begun(containerd: Containerd, name: str) -> threading.Thread:
    """A container that does something, and again when it is told to end."""
    script = f"trap 'exec /bin/true {name} last' TERM; /bin/true {name} first; /bin/sleep 1000 & wait"
    thread = threading.Thread(target=containerd.run, args=(name, script, "--label", f"called={name}"))
    thread.start()
    return thread


def end(containerd: Containerd, name: str, running: threading.Thread) -> None:
    """Tell it to."""
    containerd.signal(name, "TERM")
    running.join(LIMIT_S)
    assert not running.is_alive()


def identities(system: System, name: str, kind: str = "execve") -> dict[str, int]:
    """How many rows there are of each."""
    rows = system.query(f"SELECT identity, image, count() AS n FROM {kind} WHERE container_id = '{name}' GROUP BY ALL")
    assert all((row["identity"] == "complete") == (row["image"] == IMAGE) for row in rows), rows
    return {row["identity"]: int(row["n"]) for row in rows}


def wait_for(system: System, name: str, identity: str, kind: str = "execve") -> dict[str, int]:
    """Until rows say that and nothing else."""
    eventually(lambda: identities(system, name, kind).keys() == {identity}, said=lambda: identities(system, name, kind))
    return identities(system, name, kind)


def test_a_runtime_that_hangs(containerd: Containerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is lost, nothing is there twice, and the table of containers says what was told."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    with Held(containerd.directory / "held", containerd.socket) as held:
        monkeypatch.setenv("INFRASIGHT_RUNTIMES", f"containerd:{held.path}")
        with System(tmp_path) as system:
            system.wait_for("containers are told of by")
            held.hold()
            running = begun(containerd, name)
            before = wait_for(system, name, "pending")
            held.let_go()
            after = wait_for(system, name, "complete")
            end(containerd, name, running)
            assert after["complete"] >= before["pending"]
            execs = f"SELECT argv[3] AS part FROM execve WHERE argv[2] = '{name}' AND argv[1] = '/bin/true'"
            assert system.wait_for_count(f"SELECT count() FROM ({execs})", 2) == 2
            for kind in ("execve", "open", "process"):
                wait_for(system, name, "complete", kind)
            assert system.wait_for_count(f"SELECT count() FROM container WHERE container_id = '{name}'", 2) == 2
            told = system.query(f"SELECT state, image, container_labels FROM container WHERE container_id = '{name}' ORDER BY ts")
            assert [(row["state"], row["image"]) for row in told] == [("learned", IMAGE), ("ended", IMAGE)]
            assert f"called={name}" in told[0]["container_labels"]


def test_a_server_that_is_started_again_in_between(containerd: Containerd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds in its store what is still to be completed."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("INFRASIGHT_RUNTIMES", "none")
    with System(tmp_path) as system:
        running = begun(containerd, name)
        wait_for(system, name, "path")
    monkeypatch.setenv("INFRASIGHT_RUNTIMES", f"containerd:{containerd.socket}")
    with System(tmp_path) as system:
        found = wait_for(system, name, "complete")
        end(containerd, name, running)
        assert found["complete"]
