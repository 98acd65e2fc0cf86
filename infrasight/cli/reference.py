"""The tables of options in `docs/CLI.md`, derived: `python -m infrasight.cli.reference docs/CLI.md` brings them up to date in place."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from infrasight.cli.main import COMMANDS
from infrasight.node.settings import Settings as NodeSettings
from infrasight.server.settings import Settings as ServerSettings
from infrasight.settings import Row, describe

_TABLE = re.compile(r"(<!-- options of ([a-z. ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
DOCUMENTED: dict[str, type[Any]] = {
    **{name: command.options for name, command in COMMANDS.items()},
    "infrasight.node": NodeSettings,
    "infrasight.server": ServerSettings,
}
"""All that has options, by the name in the page's markers."""


def _row(row: Row) -> str:
    flags = ", ".join(f"`{flag}`" for flag in row.flag.split(", "))
    default = f"`{row.default}` {row.unit}".rstrip() if row.default else ""
    return f"| {flags} | {f'`{row.env}`' if row.env else ''} | {default} | {row.help} |\n"


def options_table(settings: type[Any]) -> str:
    """A settings class as a Markdown table."""
    return "\n| option | variable | default | meaning |\n|---|---|---|---|\n" + "".join(map(_row, describe(settings))) + "\n"


def brought_up_to_date(page: str) -> str:
    """The page with every table between its markers as the declarations have it now. KeyError for a marker of something that is not there."""
    return _TABLE.sub(lambda match: match[1] + options_table(DOCUMENTED[match[2]]) + match[3], page)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(brought_up_to_date(file.read_text()))
