"""`docs/EVENTS.md`, derived: what each event kind and column means."""

from __future__ import annotations

import sys
from pathlib import Path

from infrasight.schema.columns import Kind, Type
from infrasight.schema.ddl import DATABASE, TYPES
from infrasight.schema.kinds import KINDS, LOSS_REASONS, NODE_LOSS_REASONS

_PREFACE = f"""# Events

Derived from `infrasight/schema` by `make docs`: edit the declaration, not this page. Each kind is a table of the database `{DATABASE}`.
"""


def _section(kind: Kind) -> str:
    rows = []
    for column in kind.columns:
        kind_of = "Array(String)" if column.type is Type.LINEAGE else TYPES[column.type]
        rows.append(f"| `{column.name}` | {kind_of} | {column.unit} | {column.doc} |")
    return f"## {kind.name}\n\n{kind.doc}\n\n| column | type | unit | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def events_page() -> str:
    """The whole page, as Markdown."""
    reasons = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in (LOSS_REASONS | NODE_LOSS_REASONS).items())
    loss = f"### Reasons for loss\n\n| reason | meaning |\n|---|---|\n{reasons}\n"
    return "\n".join([_PREFACE, *(_section(kind) for kind in KINDS.values()), loss])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(events_page())
