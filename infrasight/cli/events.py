"""`infrasight events`: what is stored, newest last, or what happens now."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from infrasight.cli.ask import client_of, literal, rows_of_query, utf8
from infrasight.cli.options import EventsOptions, Lines
from infrasight.cli.screen import Screen, write
from infrasight.errors import CommandLineError, SettingsError

if TYPE_CHECKING:
    from infrasight.client import Client
    from infrasight.schema import Kind

LAST = 20
"""How many stored events are shown unless it is said."""


def run(options: EventsOptions) -> int:
    """Show events; the exit status."""
    if options.follow and (options.last is not None or options.since is not None):
        raise SettingsError("--last and --since are about stored events: leave them or --follow out")
    kinds = kinds_of(options.type)
    asyncio.run(_follow(options, kinds) if options.follow else _stored(options, kinds))
    return 0


def kinds_of(names: Sequence[str]) -> list[Kind]:
    """The kinds of these names; when there are none, all events: not accounts of processes, which are very many, nor what the server makes.

    SettingsError for a name that is not known.
    """
    from infrasight.schema import KINDS, SHIPPED  # brings pyarrow along

    for name in names:
        if name not in KINDS:
            raise SettingsError(f"--type: {name!r} is none of {', '.join(KINDS)}")
    return [KINDS[name] for name in dict.fromkeys(names or (name for name in SHIPPED if not KINDS[name].account))]


def _screen(options: EventsOptions) -> Screen:
    return Screen(json=options.output is Lines.JSON, colour=options.color, trunc=options.trunc)


async def _follow(options: EventsOptions, kinds: Sequence[Kind]) -> None:
    screen = _screen(options)
    async with client_of(options) as client, client.subscribe(**_filter(options, kinds)) as events:
        try:
            await screen.show(events)
        finally:
            if events.dropped:
                print(f"infrasight: {events.dropped:,} events were not shown: the output was too slow", file=sys.stderr)
    raise CommandLineError("the server has stopped")


def _filter(options: EventsOptions, kinds: Sequence[Kind]) -> dict[str, Any]:
    """The fields of a SubscribeRequest."""
    return {
        "kinds": [kind.name for kind in kinds],
        "comms": list(map(utf8, options.comm)),
        "users": list(map(utf8, options.user)),
        "pids": list(options.pid),
        "path_prefixes": list(map(utf8, options.path)),
        "containers": list(map(utf8, options.container)),
        "images": list(map(utf8, options.image)),
        "pods": list(map(utf8, options.pod)),
        "ancestors": list(map(utf8, options.ancestor)),
    }


async def _stored(options: EventsOptions, kinds: Sequence[Kind]) -> None:
    screen, last = _screen(options), options.last or LAST
    async with client_of(options) as client:
        found = [event for kind in kinds for event in await _last(client, kind, options, last)]
    found.sort(key=lambda event: event[1]["ts"])
    write(screen.line(*event) for event in found[-last:])


async def _last(client: Client, kind: Kind, options: EventsOptions, last: int) -> list[tuple[str, dict[str, Any]]]:
    """The newest events of one kind, none of a kind that has not the columns asked about."""
    names = {column.name for column in kind.columns} | ({"path"} if kind.paths else set())
    asked = {"comm": options.comm, "user": options.user, "pid": options.pid, "path": options.path, "container_id": options.container}
    asked |= {"image": options.image, "pod_name": options.pod, "ancestors": options.ancestor}
    if not names.issuperset(name for name, values in asked.items() if values):
        return []
    return [(kind.name, row) async for row in rows_of_query(client, newest(kind, options, last))]


def newest(kind: Kind, options: EventsOptions, last: int) -> str:
    """The SQL for the newest `last` events of `kind` that the options ask for; times are in nanoseconds since the epoch."""
    from infrasight.schema import Type  # loaded by whoever has a kind

    columns = [
        f"toUnixTimestamp64Nano(e.{column.name}) AS {column.name}" if column.type is Type.TIME else f"e.`{column.name}` AS `{column.name}`"
        for column in kind.columns
    ]
    where = " AND ".join(_conditions(kind, options)) or "1"
    return f"SELECT {', '.join(columns)} FROM `{kind.name}` AS e WHERE {where} ORDER BY e.ts DESC LIMIT {last}"


def _conditions(kind: Kind, options: EventsOptions) -> Iterator[str]:
    for name in ("comm", "user"):
        if values := getattr(options, name):
            yield f"e.{name} IN ({', '.join(map(literal, values))})"
    if options.pid:
        yield f"e.pid IN ({', '.join(map(str, options.pid))})"
    if options.path:
        yield _begins_with(kind.paths, options.path)
    if options.container:
        named = f"e.container_name IN ({', '.join(map(literal, options.container))})"
        yield f"({_begins_with(('container_id',), options.container)} OR {named})"
    if options.pod:
        yield _begins_with(("pod_name",), options.pod)
    if options.ancestor:
        yield f"hasAny(e.ancestors, [{', '.join(map(literal, options.ancestor))}])"
    if options.image:
        yield "(" + " OR ".join(f"position(e.image, {literal(part)}) > 0" for part in options.image) + ")"
    if options.since is not None:
        yield f"e.ts >= fromUnixTimestamp64Nano({time.time_ns() - int(options.since * 1e9)})"


def _begins_with(columns: Sequence[str], prefixes: Sequence[str]) -> str:
    return "(" + " OR ".join(f"startsWith(e.{name}, {literal(prefix)})" for name in columns for prefix in prefixes) + ")"
