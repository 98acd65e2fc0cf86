"""Files of the repository that derive from the declaration are what it says now."""

from pathlib import Path

from infrasight.schema import KINDS
from infrasight.schema.protobuf import events_proto
from infrasight.schema.reference import events_page

ROOT = Path(__file__).resolve().parents[2]


def test_events_proto_is_fresh() -> None:
    assert (ROOT / "proto/infrasight/v1/events.proto").read_text() == events_proto(), "run `make proto`"


def test_events_page_is_fresh() -> None:
    assert (ROOT / "docs/EVENTS.md").read_text() == events_page(), "run `make docs`"


def test_the_page_tells_every_column() -> None:
    page = events_page()
    for kind in KINDS.values():
        section = page.split(f"\n## {kind.name}\n")[1].split("\n## ")[0]
        rows = [line.split("|")[1].strip(" `") for line in section.split("\n### ")[0].splitlines() if line.startswith("| `")]
        assert rows == [column.name for column in kind.columns]
        assert all(line.count("|") == 5 for line in section.split("\n### ")[0].splitlines() if line.startswith("| `")), "a doc holds a |"
