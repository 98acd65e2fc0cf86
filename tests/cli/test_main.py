"""One line and the right exit status, whatever goes wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

import infrasight
from infrasight.cli import main as module
from infrasight.cli.main import COMMANDS, GROUPS, main
from infrasight.errors import InfraSightError, SettingsError
from tests.cli.stub import Stub, served


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Runs a command that raises."""

    def run(error: BaseException) -> int:
        class Failing:
            @staticmethod
            def run(_options: object) -> int:
                raise error

        monkeypatch.setattr(module.importlib, "import_module", lambda _name: Failing)
        return main(["doctor"])

    return run


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InfraSightError("no\nway \x1b[31m"), 1, "infrasight: no way \\e[31m\n"),
        (SettingsError("--x: bad"), 2, "infrasight: --x: bad\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_failures(error: BaseException, status: int, said: str, failing: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert failing(error) == status
    assert capsys.readouterr().err == said


def test_a_mistake_of_ours_is_one_line_unless_asked_for(
    failing: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert failing(KeyError("x")) == 1
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv(module.DEBUG, "1")
    with pytest.raises(KeyError):
        failing(KeyError("x"))


@pytest.mark.parametrize("argv", [[], ["nope"], ["up", "--server-port", "70000"], ["up", "--probes", "nope"], ["query"], ["query", "a", "b"]])
def test_bad_options_are_one_line_and_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(argv)
    except SystemExit as end:
        status = int(str(end.code))
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("infrasight: ")
    assert said.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"infrasight {infrasight.__version__}\n"


@pytest.mark.parametrize("group", ["", *GROUPS])
def test_help_lists_every_command(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*group.split(), "--help"])
    said = " ".join(capsys.readouterr().out.split())
    listed = {name.rpartition(" ")[2]: command.summary for name, command in COMMANDS.items() if name.rpartition(" ")[0] == group}
    assert listed
    assert all(f"{name} {summary}" in said for name, summary in (listed | (GROUPS if not group else {})).items())


def test_a_reader_that_has_had_enough_is_no_failure() -> None:
    rows = b'{"n":1}\n' * 100_000
    with served(Stub(lambda _sql, _format: [rows[:500_000], rows[500_000:]])) as port:
        command = [sys.executable, "-m", "infrasight.cli.main", "query", "SELECT 1", "-o", "json", "--server-port", port]
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 0


def test_a_question_loads_no_database_and_no_arrays() -> None:
    """Starting quickly is a feature: what takes long to import is not imported."""
    with served(Stub()) as port:
        code = (
            "import sys; from infrasight.cli.main import main; "
            f"main(['query', 'SELECT 1', '-o', 'json', '--server-port', '{port}']); "
            "print([name for name in ('chdb', 'pyarrow', 'numpy', 'rich', 'bcc', 'aiohttp') if name in sys.modules])"
        )
        environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
