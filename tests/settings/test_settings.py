"""One declaration gives flag, variable, default, unit and help; what is bad is named in one line."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path

import pytest

from infrasight.errors import SettingsError
from infrasight.settings import Parser, add_to, describe, option, parse, read


class Output(enum.Enum):
    NONE = "none"
    JSON = "json"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One setting of every type."""

    server_port: int = option(50051, env="SERVER_PORT", minimum=0, maximum=65535, help="port of the server")
    flush_after_s: float = option(0.5, unit="s", minimum=0.01, help="how old a batch may grow")
    probes: tuple[str, ...] = option(("open", "execve"), env="TRACER", choices=("open", "execve", "connect"), help="what to trace")
    node_name: str = option("", env="NODE_NAME", help="name of this node")
    output: Output = option(Output.JSON, flags=("-o", "--output"), help="how events are shown")
    quiet: bool = option(False, help="say nothing")
    spool: Path | None = option(None, env=None, help="where to spool, 100% of it")
    pids: tuple[int, ...] = option((), env="PIDS", minimum=1, help="processes")
    paths: tuple[str, ...] = option((), env=None, comma=False, help="paths")


def sample(*argv: str, environ: Mapping[str, str] | None = None) -> Sample:
    return parse(Sample, argv, environ or {}, prog="sample", description="A sample.")


def refused(capsys: pytest.CaptureFixture[str], *argv: str, environ: Mapping[str, str] | None = None) -> str:
    """The one line that a bad command line ends with."""
    with pytest.raises(SystemExit) as end:
        sample(*argv, environ=environ)
    assert end.value.code == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_defaults() -> None:
    assert sample() == Sample() == Sample(50051, 0.5, ("open", "execve"), "", Output.JSON, False, None)


def test_environment_wins_over_default() -> None:
    environ = {
        "SERVER_PORT": "7",
        "INFRASIGHT_FLUSH_AFTER_S": "2.5",
        "TRACER": " open, connect,",
        "NODE_NAME": "böx",
        "INFRASIGHT_OUTPUT": "none",
        "INFRASIGHT_QUIET": "Yes",
        "INFRASIGHT_SPOOL": "/ignored",
    }
    assert sample(environ=environ) == Sample(7, 2.5, ("open", "connect"), "böx", Output.NONE, True, None)


def test_flag_wins_over_environment() -> None:
    environ = {"SERVER_PORT": "7", "TRACER": "open", "INFRASIGHT_QUIET": "1"}
    given = sample("--server-port", "0", "--probes", "execve,connect", "--probes=open", "--no-quiet", "-onone", "--spool=d", environ=environ)
    assert given == Sample(0, probes=("execve", "connect", "open"), output=Output.NONE, spool=Path("d"))


def test_lists_of_numbers_and_lists_that_are_not_split() -> None:
    given = sample("--paths", "/a,b", "--paths=/ c", environ={"PIDS": "1, 2"})
    assert (given.pids, given.paths) == ((1, 2), ("/a,b", "/ c"))


def test_a_positional_argument() -> None:
    @dataclasses.dataclass(frozen=True)
    class Question:
        sql: str = option("", env=None, flags=("sql",), help="what to ask")

    assert parse(Question, ["SELECT 1"], {}, prog="ask", description="").sql == "SELECT 1"
    assert describe(Question)[0].flag == "sql"
    with pytest.raises(SystemExit):
        parse(Question, [], {}, prog="ask", description="")


def test_flag_wins_over_an_environment_that_is_bad() -> None:
    assert sample("--server-port", "1", environ={"SERVER_PORT": "x"}).server_port == 1


def test_a_variable_set_to_nothing_counts_as_not_set() -> None:
    assert sample(environ={"SERVER_PORT": "", "TRACER": ""}) == Sample()


@pytest.mark.parametrize(
    ("flag", "variable", "text", "reason"),
    [
        ("--server-port", "SERVER_PORT", "65536", "65536 is not between 0 and 65535"),
        ("--server-port", "SERVER_PORT", "-1", "-1 is not between 0 and 65535"),
        ("--server-port", "SERVER_PORT", "http", "'http' is not a whole number"),
        ("--flush-after-s", "INFRASIGHT_FLUSH_AFTER_S", "0", "0 is not 0.01 or more"),
        ("--flush-after-s", "INFRASIGHT_FLUSH_AFTER_S", "nan", "nan is not 0.01 or more"),
        ("--probes", "TRACER", "open,close", "'close' is none of open, execve, connect"),
        ("--pids", "PIDS", "3,0", "0 is not 1 or more"),
        ("--output", "INFRASIGHT_OUTPUT", "xml", "'xml' is none of none, json"),
    ],
)
def test_a_bad_value_names_the_flag_or_the_variable(flag: str, variable: str, text: str, reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, f"{flag}={text}")
    assert flag in line
    assert reason in line
    assert refused(capsys, environ={variable: text}).startswith(f"sample: {variable}: {reason}")


def test_a_bad_switch_in_the_environment_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "INFRASIGHT_QUIET: 'maybe' is neither yes nor no" in refused(capsys, environ={"INFRASIGHT_QUIET": "maybe"})


@pytest.mark.parametrize("argv", [["--nonsense"], ["--server"], ["stray"], ["--server-port"]])
def test_a_bad_command_line_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "sample --help" in refused(capsys, *argv)


def test_a_sub_command_reads_its_own_settings() -> None:
    parser = Parser(prog="sample")
    add_to(parser.add_subparsers().add_parser("sub"), Sample)
    assert read(Sample, parser.parse_args(["sub", "--server-port", "5"]), {"NODE_NAME": "n"}) == Sample(5, node_name="n")
    with pytest.raises(SettingsError, match=r"^SERVER_PORT: "):
        read(Sample, parser.parse_args(["sub"]), {"SERVER_PORT": "x"})


def test_rows_for_the_documentation() -> None:
    rows = {row.name: row for row in describe(Sample)}
    assert list(rows) == [each.name for each in dataclasses.fields(Sample)]
    assert (rows["flush_after_s"].flag, rows["flush_after_s"].env) == ("--flush-after-s", "INFRASIGHT_FLUSH_AFTER_S")
    assert (rows["flush_after_s"].default, rows["flush_after_s"].unit) == ("0.5", "s")
    assert rows["quiet"].flag == "--quiet, --no-quiet"
    assert rows["output"].flag == "-o, --output"
    assert rows["output"].help == "how events are shown (none, json)"
    assert (rows["probes"].default, rows["quiet"].default, rows["spool"].default, rows["spool"].env) == ("open,execve", "no", "", "")


def test_help_shows_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        sample("--help")
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for row in describe(Sample):
        assert row.help.partition(" (")[0] in text
        assert row.env in text
        assert all(flag in text for flag in row.flag.split(", "))
