"""docs/COMPATIBILITY.md names all that an agent may send and all that a dashboard may ask."""

from __future__ import annotations

import re
from pathlib import Path

from infrasight.schema.original import VIEWS
from infrasight.server.original import FLUSH_ROWS, MAX_EVENTS
from infrasight.server.translation import _PLANS

PAGE = (Path(__file__).parents[2] / "docs/COMPATIBILITY.md").read_text()
MEASURES = (Path(__file__).parents[2] / "infrasight/node/measures.py").read_text()


def test_every_event_type_and_table_is_named() -> None:
    named = set(re.findall(r"\w+", PAGE))
    assert {event_type.decode() for event_type in _PLANS} <= named
    assert {view.name for view in VIEWS} <= named


def test_every_metric_named_is_one() -> None:
    for name in re.findall(r"`(infrasight_(?:tracer|enricher|grpc)\w+)", PAGE):
        assert f'"{name}"' in MEASURES


def test_limits_are_as_said() -> None:
    assert f"{FLUSH_ROWS:,} rows" in PAGE
    assert f"up to {MAX_EVENTS:,} events" in PAGE
