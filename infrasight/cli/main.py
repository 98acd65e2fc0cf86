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
from infrasight.cli.options import (
    CertsInitOptions,
    CertsNodeOptions,
    CertsRenewOptions,
    CertsRevokeOptions,
    CertsServerOptions,
    CertsShowOptions,
    CertsTokenOptions,
    CertsUserOptions,
    DoctorOptions,
    EventsOptions,
    QueryOptions,
    SchemaOptions,
    UpOptions,
)
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
    "certs init": Command(CertsInitOptions, "infrasight.cli.certs", "make an authority"),
    "certs server": Command(CertsServerOptions, "infrasight.cli.certs", "make a certificate for a server"),
    "certs node": Command(CertsNodeOptions, "infrasight.cli.certs", "make a certificate for a node"),
    "certs user": Command(CertsUserOptions, "infrasight.cli.certs", "make a certificate for a person or a program that asks"),
    "certs token": Command(CertsTokenOptions, "infrasight.cli.certs", "make a token, which does in place of a certificate"),
    "certs renew": Command(CertsRenewOptions, "infrasight.cli.certs", "make certificates anew, with new keys"),
    "certs revoke": Command(CertsRevokeOptions, "infrasight.cli.certs", "make a certificate or a token count no more"),
    "certs show": Command(CertsShowOptions, "infrasight.cli.certs", "show what there is, and until when it is good"),
}
"""By its name: one word, or a group's and its own."""
GROUPS = {"certs": "make certificates and tokens for a small fleet"}


class _Parser(Parser):
    who = "infrasight"  # for every command


def parser() -> Parser:
    """The whole command line."""
    top = _Parser(prog="infrasight", description="See, keep and question what runs on Linux.")
    top.add_argument("--version", action="version", version=f"infrasight {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    groups = {"": commands}
    for name, command in COMMANDS.items():
        group, _, own = name.rpartition(" ")
        if group not in groups:
            about = commands.add_parser(group, help=GROUPS[group], description=GROUPS[group].capitalize() + ".")
            groups[group] = about.add_subparsers(dest="action", metavar="ACTION", required=True)
        add_to(groups[group].add_parser(own, help=command.summary, description=command.summary.capitalize() + "."), command.options)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. 0: done; 1: it failed; 2: bad options; 130: interrupted."""
    for stream in (sys.stdout, sys.stderr):
        _show_anything(stream)
    try:
        given = parser().parse_args(argv)
        command = COMMANDS[" ".join(filter(None, (given.command, getattr(given, "action", None))))]
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
