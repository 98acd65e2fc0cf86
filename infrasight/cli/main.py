"""`infrasight`: finds the command, runs it, and turns whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from infrasight import __version__
from infrasight.cli.options import DoctorOptions, EventsOptions, QueryOptions, SchemaOptions, UpOptions
from infrasight.errors import InfraSightError, SettingsError, Unreachable
from infrasight.present.safe import printable
from infrasight.settings import Parser, add_to, read

DEBUG = "INFRASIGHT_DEBUG"
"""When this variable is set, a mistake of ours shows its traceback."""
UNREACHABLE = "`infrasight up` starts a server; --server-addr and --server-port say where another is"


@dataclass(frozen=True)
class Command:
    """A command: what it can be told, and the module, imported when it is called, whose `run(options)` does it and returns the exit status."""

    options: type[Any]
    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "up": Command(UpOptions, "infrasight.cli.up", "trace this machine, keep what is seen, and show events as they happen"),
    "events": Command(EventsOptions, "infrasight.cli.events", "show events: the newest that are kept, or those that happen now"),
    "query": Command(QueryOptions, "infrasight.cli.query", "ask in SQL"),
    "schema": Command(SchemaOptions, "infrasight.cli.schema", "print the statements that make the tables of a ClickHouse server or cluster"),
    "doctor": Command(DoctorOptions, "infrasight.cli.doctor", "check what this machine offers, and say how to mend what is missing"),
}


class _Parser(Parser):
    who = "infrasight"  # for every command


def parser() -> Parser:
    """The whole command line."""
    top = _Parser(prog="infrasight", description="See, keep and question what runs on Linux.")
    top.add_argument("--version", action="version", version=f"infrasight {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        add_to(commands.add_parser(name, help=command.summary, description=command.summary.capitalize() + "."), command.options)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: it failed; 2: bad options; 130: interrupted."""
    for stream in (sys.stdout, sys.stderr):
        _show_anything(stream)
    try:
        given = parser().parse_args(argv)
        command = COMMANDS[given.command]
        status: int = importlib.import_module(command.module).run(read(command.options, given))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has had enough
        _write_nothing_more()
        return 0
    except KeyboardInterrupt:
        return 130
    except InfraSightError as error:
        hint = f" ({UNREACHABLE})" if isinstance(error, Unreachable) else ""
        return _complain(f"{error}{hint}", 2 if isinstance(error, SettingsError) else 1)
    except Exception as error:  # people get a line, whatever it is
        if os.environ.get(DEBUG):
            raise
        return _complain(f"a mistake in infrasight, not in what you did: {error!r} ({DEBUG}=1 shows where)", 1)
    return status


def _complain(text: str, status: int) -> int:
    with contextlib.suppress(OSError):
        print(f"infrasight: {printable(' '.join(text.split()))}", file=sys.stderr)
    return status


def _show_anything(stream: TextIO) -> None:
    """A terminal whose encoding lacks a character gets it escaped."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _write_nothing_more() -> None:
    """What Python would still write at its end goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
