"""`docs/EVENTS.md`, derived: what each event kind and column means."""

from __future__ import annotations

import sys
from pathlib import Path

from infrasight.schema.columns import Kind, Type
from infrasight.schema.ddl import DATABASE, TYPES
from infrasight.schema.kinds import KINDS, LOSS_REASONS, NODE_LOSS_REASONS
from infrasight.schema.rollups import GRAINS, ROLLUPS, Rollup

_PREFACE = f"""# Events

Derived from `infrasight/schema` by `make docs`: edit the declaration, not this page. Each kind is a table of the database `{DATABASE}`.
Besides the columns told here, every table has `stored` (DateTime('UTC')): when the server stored the row. After the kinds come the rollups.
"""


def _section(kind: Kind) -> str:
    rows = []
    for column in kind.columns:
        kind_of = "Array(String)" if column.type is Type.LINEAGE else TYPES[column.type]
        rows.append(f"| `{column.name}` | {kind_of} | {column.unit} | {column.doc} |")
    return f"## {kind.name}\n\n{kind.doc}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _rollup(rollup: Rollup) -> str:
    names = " and ".join(f"`{rollup.name}_{grain.suffix}`" for grain in GRAINS)
    by = ", ".join(f"`{name}`" for name in ("ts", *rollup.by))
    rows = "\n".join(f"| `{name}` | {each.doc} |" for name, each in rollup.sums.items())
    return f"## {names}\n\n{rollup.doc} Told apart by {by}; ask for the `sum()` of:\n\n| column | sum of |\n|---|---|\n{rows}\n"


def events_page() -> str:
    """The whole page, as Markdown."""
    reasons = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in (LOSS_REASONS | NODE_LOSS_REASONS).items())
    loss = f"### Reasons for loss\n\n| reason | meaning |\n|---|---|\n{reasons}\n"
    return "\n".join([_PREFACE, *(_section(kind) for kind in KINDS.values()), loss, *map(_rollup, ROLLUPS.values())])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(events_page())
