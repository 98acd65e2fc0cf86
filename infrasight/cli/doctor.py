"""`infrasight doctor`: what this machine offers, and how to mend what is missing."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys

from infrasight.cli import checks
from infrasight.cli.checks import Check
from infrasight.cli.directory import default_directory
from infrasight.cli.options import DoctorOptions
from infrasight.cli.screen import write
from infrasight.present.safe import printable


def run(options: DoctorOptions) -> int:
    """Check everything and print it; 0 when all is well."""
    found = asyncio.run(_look(options))
    if options.json:
        write(json.dumps(dataclasses.asdict(check)) + "\n" for check in found)
    else:
        write(line + "\n" for check in found for line in _lines(check, sys.stdout.isatty()))
    return 0 if all(check.ok for check in found) else 1


async def _look(options: DoctorOptions) -> list[Check]:
    here = [checks.kernel(), checks.rights(), checks.btf(), checks.tracefs(), checks.bcc(), checks.clock()]
    kept = checks.directory(options.data_dir or default_directory())
    return [*here, *await checks.probes(), kept, *await checks.kubernetes(options), *await checks.server(options)]


def _lines(check: Check, colour: bool) -> list[str]:
    mark = "ok  " if check.ok else "FAIL"
    if colour:
        mark = f"\x1b[{32 if check.ok else 31}m{mark}\x1b[0m"
    line = f"{mark}  {check.name:<14}  {printable(check.detail)}"
    return [line] if check.ok or not check.mend else [line, f"      {'':<14}  to mend it: {check.mend}"]
