"""ARCHITECTURE.md names only what exists, and all that it must."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infrasight.actors import Graph, WhenFull
from infrasight.node.graph import build
from infrasight.node.settings import OUTPUTS, Settings
from infrasight.server.graph import Server
from infrasight.store import open_store

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
TOPS = {"bpf", "deploy", "docs", "infrasight", "models", "proto", "tests"}
PLACES = sorted({place for place in re.findall(r"`([\w./-]+)`", PAGE) if place.split("/")[0] in TOPS and "/" in place})


@pytest.mark.parametrize("place", PLACES)
def test_every_place_named_exists(place: str) -> None:
    assert (ROOT / place).exists()


def test_every_room_is_in_the_table() -> None:
    found = {path.name for path in (ROOT / "infrasight").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    rooms = re.findall(r"^\| `infrasight/([\w.]+?)/?` \|", PAGE, re.MULTILINE)
    assert set(rooms) == found - {"__init__.py"}


def edges(graph: Graph) -> list[str]:
    return [f"`{edge.mailbox.name}` {edge.source} → {edge.target}" for edge in graph.edges]


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_edge_of_the_node_is_in_the_table(output: str) -> None:
    for edge in build(None, Settings(output=output)).graph.edges:  # type: ignore[arg-type]  # wiring touches no tracing
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{edge.mailbox.name}` {edge.source} →"))
        assert edge.target in row
        assert f"| {edge.mailbox.limit >> 20} MiB |" in row or f"| {edge.mailbox.limit} |" in row
        assert {WhenFull.BLOCK: "blocks", WhenFull.DROP_OLDEST: "drops oldest"}[edge.mailbox.when_full] in row


def test_every_edge_of_the_server_is_in_the_table(tmp_path: Path) -> None:
    for edge in edges(Server(open_store(f"chdb://{tmp_path}/store")).graph):
        assert f"| {edge} |" in PAGE
