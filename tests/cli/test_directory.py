"""One `up` at a time has a data directory, and the next one waits for what a killed one left running."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infrasight.cli import directory
from infrasight.cli.directory import claimed, default_directory
from infrasight.errors import DataDirectoryError


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_directory({}) == Path("/var/lib/infrasight")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_directory({"XDG_DATA_HOME": "/x"}) == Path("/x/infrasight")
    assert default_directory({}) == Path.home() / ".local/share/infrasight"


def test_it_is_made_for_its_owner_only(tmp_path: Path) -> None:
    with claimed(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_second_claim_is_refused_at_once_and_succeeds_later(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(DataDirectoryError, match="in use by another"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataDirectoryError, match=r"File exists|Not a directory"), claimed(tmp_path / "file"):
        pass


def orphan(path: Path) -> subprocess.Popen[bytes]:
    """A child that was lent the claim, and outlives the one who made it, until its input ends."""
    with claimed(path) as lent:
        return subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[lent])


def test_children_of_a_killed_run_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with orphan(tmp_path) as child:
        assert child.stdin is not None
        waited: list[float] = []

        def end_it(seconds: float) -> None:
            waited.append(seconds)
            child.communicate()

        monkeypatch.setattr(directory.time, "sleep", end_it)
        with claimed(tmp_path):
            assert waited


def test_children_that_do_not_end_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "WAIT_S", 0.0)
    with orphan(tmp_path) as child:
        with pytest.raises(DataDirectoryError, match="earlier"), claimed(tmp_path):
            pass
        child.communicate()
