"""What skip indexes are worth: `python -m tests.store.measure_indexes DIRECTORY`, the `store` directory of an `infrasight up` that has ended, of
which it makes a copy, with what happened again and again. The table in docs/STORE.md comes from here.

Of the indexes that the table `open` has, and of some that it might have, each by the question that it is for: how many granules are read, how long
that takes, and what the index takes on disk, and of the processor at an insert.
"""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from infrasight.schema.ddl import DATABASE
from infrasight.schema.rollups import ROLLUPS
from infrasight.schema.tables import TABLES
from infrasight.store import batches, copies
from infrasight.store.blocks import block
from infrasight.store.engine import Session
from infrasight.store.settings import WRITER_SESSION
from tests.store import samples
from tests.store.engines import session
from tests.store.measure import events

TABLE = f"{DATABASE}.open"
AGAIN = 40
"""How often what was recorded is there, ten minutes later each time."""
TIMES = 5
"""Of a question, of which the fastest counts."""
INSERTS = 100
"""Of each sort, of which the lower quartile counts: others use the machine too."""
OURS = dict(TABLES["open"].indexes)
STORED = "stored_range", OURS["stored_range"]


@dataclass(frozen=True)
class Trial:
    """An index, and a question that it is for."""

    index: tuple[str, str]
    about: str
    question: str


def trials(found: Session) -> list[Trial]:
    """What is asked for is a minute in the middle, and what is rare."""
    ((middle,),) = found.rows(f"SELECT toString(toUInt32(toStartOfMinute(quantileExact(0.5)(stored)))) FROM {TABLE}")
    since_s = int(middle)
    made = [
        Trial(STORED, "a minute of storing, for a rollup", ROLLUPS["activity"].select(["open"], since_s, since_s + 60)),
        Trial(STORED, "copies of five minutes", copies.search({"open": since_s}, since_s + 300)),
    ]
    for column, kind in {"path": "bloom_filter(0.01)", "exe": "bloom_filter(0.01)", "comm": "set(100)", "process_id": "bloom_filter(0.01)"}.items():
        rare = f"SELECT hex(toString({column})) FROM {TABLE} GROUP BY {column} ORDER BY count(), {column} LIMIT 1"
        ((value,),) = found.rows(rare)
        sought = f"unhex('{value}')" if column != "process_id" else bytes.fromhex(value).decode()
        index = f"{column}_is", f"{column} TYPE {kind} GRANULARITY 1"
        made.append(Trial(index, f"the rarest `{column}`", f"SELECT count() FROM {TABLE} WHERE {column} = {sought}"))
    return made


def grow(found: Session) -> None:
    """What was recorded, again and again, as one part a day: as merges leave it."""
    found.execute(f"RENAME TABLE {TABLE} TO {TABLE}_recorded; {TABLES['open'].create()[0]}")
    stored = "default_kind IN ('', 'DEFAULT')"
    names = [name for (name,) in found.rows(f"SELECT name FROM system.columns WHERE database = '{DATABASE}' AND table = 'open' AND {stored}")]
    listed = ", ".join(f"`{name}`" for name in names)
    for number in range(AGAIN):
        later = f"* REPLACE (ts + toIntervalMinute({10 * number}) AS ts, stored + toIntervalMinute({10 * number}) AS stored)"
        found.execute(f"INSERT INTO {TABLE} ({listed}) SELECT {listed} FROM (SELECT {later} FROM {TABLE}_recorded)")
    found.execute(f"OPTIMIZE TABLE {TABLE} FINAL")


def granules(found: Session, question: str) -> int:
    """Read by a question."""
    said = "\n".join(line for (line,) in found.rows(f"EXPLAIN indexes = 1 {question}"))
    return sum(int(read) for read in re.findall(r"^.*ReadFromMergeTree[^\0]*?Parts: \d+ \| Granules: (\d+)", said, re.MULTILINE))


def fastest_ms(found: Session, question: str) -> float:
    """How long it takes."""
    spent = []
    for _ in range(TIMES):
        began = time.perf_counter()
        found.execute(f"{question} FORMAT Null")
        spent.append(1000 * (time.perf_counter() - began))
    return min(spent)


def inserts_ms(found: Session, chosen: list[tuple[str, str]], rows: int) -> list[float]:
    """Processor time of an insert into the table without any index, and with each."""
    tables = [f"{TABLE}_{name}" for name in ("plain", *(name for name, _ in chosen))]
    for table, (name, what) in zip(tables, [("", ""), *chosen], strict=True):
        found.execute(f"CREATE TABLE {table} AS {TABLE}; ALTER TABLE {table} {', '.join(f'DROP INDEX {ours}' for ours in OURS)}")
        if name:
            found.execute(f"ALTER TABLE {table} ADD INDEX {name} {what}")
    made = block(samples.as_stored("open", events(rows, 1), 1_790_000_000), batches.stored_types("open"))
    spent: dict[str, list[float]] = {table: [] for table in tables}
    for number in range(INSERTS):
        for table, times in spent.items():
            began = time.process_time()
            found.insert(lambda file: batches.file_statement("open", f"{number}", file).replace(f"{DATABASE}.`open`", table), made)  # noqa: B023
            times.append(1000 * (time.process_time() - began))
    for table in tables:
        found.execute(f"DROP TABLE {table}")
    return [sorted(times)[len(times) // 4] for times in spent.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="of a store that nobody has open")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(parser.parse_args().directory, copy, dirs_exist_ok=True, symlinks=True)
        with session(Path(copy)) as found:
            found.execute(f"{WRITER_SESSION}; SET use_query_condition_cache = 0")
            grow(found)
            ((total,),) = found.rows(f"SELECT toString(count()) FROM {TABLE}")
            print(f"{total} rows of `open`\n")
            print("| index | question | granules without | with | ms without | with | bytes a row |\n|---|---|---|---|---|---|---|")
            for trial in trials(found):
                name, what = trial.index
                if name not in OURS:
                    found.execute(f"ALTER TABLE {TABLE} ADD INDEX {name} {what}")
                    found.execute(f"ALTER TABLE {TABLE} MATERIALIZE INDEX {name} SETTINGS mutations_sync = 2")
                read, took = [], []
                for use in (0, 1):
                    found.execute(f"SET use_skip_indexes = {use}")
                    read.append(granules(found, trial.question))
                    took.append(fastest_ms(found, trial.question))
                listed = f"SELECT toString(round(sum(data_compressed_bytes) / {total}, 2)) FROM system.data_skipping_indices"
                ((size,),) = found.rows(f"{listed} WHERE database = '{DATABASE}' AND table = 'open' AND name = '{name}'")
                print(f"| `{what.removesuffix(' GRANULARITY 1')}` | {trial.about} | {read[0]} | {read[1]} | {took[0]:.1f} | {took[1]:.1f} | {size} |")
                if name not in OURS:
                    found.execute(f"ALTER TABLE {TABLE} DROP INDEX {name} SETTINGS mutations_sync = 2")
            found.execute("SYSTEM STOP MERGES")
            chosen = list(dict.fromkeys(trial.index for trial in trials(found)))
            print(f"\n| rows inserted | ms CPU without any | {' | '.join(f'`{name}`' for name, _ in chosen)} |\n|---|---|{'---|' * len(chosen)}")
            for rows in (10, 10_000):
                print(f"| {rows} | {' | '.join(f'{spent:.2f}' for spent in inserts_ms(found, chosen, rows))} |")


if __name__ == "__main__":
    main()
