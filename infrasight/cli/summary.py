"""What a run of `up` stored and lost, in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infrasight.cli.ask import rows_of_query

if TYPE_CHECKING:
    from infrasight.client import Client


async def summary(client: Client, since_ns: int) -> str:
    """`stored 1,009 execve, 100,003 open; lost 0`: events since then, as the store has them. Raises what `Client.query` raises."""
    from infrasight.schema import PROBES  # brings pyarrow along

    since = f"ts >= fromUnixTimestamp64Nano({since_ns})"
    counts = [f"SELECT '{name}' AS kind, count() AS events FROM `{name}` WHERE {since}" for name in PROBES]
    counts.append(f"SELECT 'lost' AS kind, sum(count) AS events FROM loss WHERE {since}")
    found = {row["kind"]: int(row["events"]) async for row in rows_of_query(client, " UNION ALL ".join(counts))}
    stored = ", ".join(f"{found[name]:,} {name}" for name in PROBES if found[name])
    return f"stored {stored or 'nothing'}; lost {found['lost']:,}"
