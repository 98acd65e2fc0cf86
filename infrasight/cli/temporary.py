"""A server for the time of one question, on a data directory that no server runs on."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from infrasight.cli import programs
from infrasight.cli.children import Child
from infrasight.cli.options import QueryOptions
from infrasight.cli.together import together
from infrasight.errors import DataDirectoryError
from infrasight.trust import Trust


@contextlib.asynccontextmanager
async def server_on(directory: Path, options: QueryOptions) -> AsyncIterator[QueryOptions]:
    """Run a server on `directory` and a free port; yields `options` that lead to it. ChildFailed with its own words when it cannot."""
    if not await asyncio.to_thread((directory / "store").is_dir):
        raise DataDirectoryError(f"{directory} holds no events")
    with tempfile.TemporaryDirectory(prefix="infrasight-") as folder:
        port_file = Path(folder) / "port"
        program = programs.server(directory, port_file, environ=os.environ)
        async with together() as tasks:
            child = Child(program, lambda _name, _line: None)
            tasks.create_task(child.run(), name="server")
            await child.ready.wait()
            alone = dataclasses.asdict(Trust())
            yield dataclasses.replace(options, server_addr=programs.LOOPBACK, server_port=programs.port_in(port_file), **alone)
            await child.stop()
