"""What a row takes on disk: `python -m tests.store.measure_columns DIRECTORY`, the `store` directory of an `infrasight up` that has ended, of
which it makes a copy. The tables in docs/STORE.md come from here."""

# ruff: noqa: T201 - printing is what it is for

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from infrasight.schema.ddl import DATABASE
from infrasight.store.engine import Session
from tests.store.engines import session

OF = f"FROM system.parts WHERE active AND database = '{DATABASE}'"
MERGED = "| {} | {} | {} | {} |"


def sizes(found: Session) -> dict[str, tuple[int, int]]:
    """Rows and bytes by table."""
    listed = found.rows(f"SELECT table, toString(sum(rows)), toString(sum(bytes_on_disk)) {OF} GROUP BY table ORDER BY sum(rows) DESC")
    return {table: (int(rows), int(size)) for table, rows, size in listed}


def columns(found: Session, table: str) -> list[list[str]]:
    """Column, bytes a row and bytes before compression, the largest first; none where all parts are small, which have their columns in one file."""
    size = "sum(column_data_compressed_bytes + column_marks_bytes) / sum(rows)"
    return found.rows(
        f"SELECT column, toString(round({size}, 2)), toString(round(sum(column_data_uncompressed_bytes) / sum(rows), 1)) FROM system.parts_columns "
        f"WHERE active AND database = '{DATABASE}' AND table = '{table}' AND part_type = 'Wide' GROUP BY column "
        f"HAVING {size} >= 0.01 ORDER BY {size} DESC"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="of a store that nobody has open")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(parser.parse_args().directory, copy, dirs_exist_ok=True, symlinks=True)
        with session(Path(copy)) as found:
            fresh = sizes(found)
            for table in fresh:
                found.execute(f"OPTIMIZE TABLE {DATABASE}.`{table}` FINAL")
            merged = sizes(found)
            print("| table | rows | bytes a row as inserted | merged |\n|---|---|---|---|")
            for table, (rows, size) in fresh.items():
                print(MERGED.format(f"`{table}`", rows, round(size / rows, 1), round(merged[table][1] / rows, 1)))
            rows = sum(rows for rows, _ in fresh.values())
            print(MERGED.format("all", rows, *(round(sum(size for _, size in each.values()) / rows, 1) for each in (fresh, merged))))
            for table in list(fresh)[:1]:
                print(f"\n| column of `{table}` | bytes a row | before compression |\n|---|---|---|")
                print("\n".join(f"| `{name}` | {size} | {plain} |" for name, size, plain in columns(found, table)))


if __name__ == "__main__":
    main()
