"""What was typed on the command line of a real program is nowhere in the store."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.schema import KINDS
from infrasight.schema.parts import ARGV_MAX
from tests.e2e.system import System

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
SECRET = uuid.uuid4().hex


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("redaction")) as system:
        yield system


COMMANDS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("mysql", "-uroot", f"-p{SECRET}", "db"), ("mysql", "-uroot", "-p***", "db")),
    (("curl", "-u", f"bob:{SECRET}", f"https://bob:{SECRET}@h/?token={SECRET}&x=1"), ("curl", "-u", "bob:***", "https://bob:***@h/?token=***&x=1")),
    (("curl", "-H", f"Authorization: Bearer {SECRET}"), ("curl", "-H", "Authorization: Bearer ***")),
    (("tool", "--password", SECRET, "", f"TOKEN={SECRET}"), ("tool", "--password", "***", "", "TOKEN=***")),
    (("sh", "-c", f"PGPASSWORD={SECRET} psql -h db"), ("sh", "-c", "PGPASSWORD=*** psql -h db")),
    (("ls", "-p", "token", "a=b"), ("ls", "-p", "token", "a=b")),
)


@pytest.mark.parametrize(("argv", "expected"), COMMANDS, ids=[argv[0] for argv, _ in COMMANDS])
def test_real_programs(system: System, tmp_path: Path, argv: tuple[str, ...], expected: tuple[str, ...]) -> None:
    """One that does nothing, under their names; then one that is not there, whose exec fails."""
    (tmp_path / "true").symlink_to("/bin/true")
    for program, ret in ((tmp_path / "true", 0), (tmp_path / "missing", -2)):
        child = os.fork()
        if not child:
            try:
                os.execv(program, argv)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        where = f"FROM execve WHERE path = '{program}'"
        assert system.wait_for_count(f"SELECT count() AS n {where}", 1) == 1
        (row,) = system.query(f"SELECT argv, ret, redacted, argv_truncated {where}")
        assert row["ret"] == ret
        if row["argv_truncated"]:  # of an exec that failed: not all of it was in memory
            assert ret
            assert row["argv"] == list(expected)[: len(row["argv"])]
        else:
            assert (row["argv"], row["redacted"]) == (list(expected), argv != expected)


def test_a_command_line_that_is_cut_in_the_middle_of_a_secret(system: System, tmp_path: Path) -> None:
    (tmp_path / "true").symlink_to("/bin/true")
    start = f"https://bob:{SECRET}"
    padding = ARGV_MAX - len(f"{tmp_path}/true") - len(start) - 2 + len(SECRET) // 2  # half of it, with two NULs before
    subprocess.run([tmp_path / "true", "x" * padding, f"{start}@h/"], check=True)
    where = f"FROM execve WHERE path = '{tmp_path}/true'"
    assert system.wait_for_count(f"SELECT count() AS n {where}", 1) == 1
    (row,) = system.query(f"SELECT argv, redacted, argv_truncated {where}")
    assert row["argv"][1:] == ["x" * padding, "https://bob:***"]
    assert (row["redacted"], row["argv_truncated"]) == (True, True)


def test_paths_that_are_urls(system: System, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        os.open(f"{tmp_path}/https://bob:{SECRET}@h/x", os.O_RDONLY)
    where = f"FROM open WHERE path LIKE '{tmp_path}/https:%'"
    assert system.wait_for_count(f"SELECT count() AS n {where}", 1) == 1
    (row,) = system.query(f"SELECT path, path_resolved {where}")
    assert row == {"path": f"{tmp_path}/https://bob:***@h/x", "path_resolved": f"{tmp_path}/https:/bob:***@h/x"}


def test_nothing_of_it_is_in_any_table(system: System) -> None:
    """After all of the above. Half of it is looked for, so that a beginning would be found."""
    for kind in KINDS:
        assert system.count(f"SELECT count() AS n FROM {kind} WHERE position(toString(tuple(*)), '{SECRET[:10]}') > 0") == 0, kind
    assert system.count("SELECT count() AS n FROM execve WHERE redacted AND position(toString(tuple(*)), '***') > 0") >= len(COMMANDS)
