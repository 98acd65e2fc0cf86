"""Every command and every option is in docs/CLI.md, as it is declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.cli.main import COMMANDS
from infrasight.cli.reference import DOCUMENTED, brought_up_to_date
from infrasight.settings import describe

PAGE = (Path(__file__).parents[2] / "docs" / "CLI.md").read_text()


def test_the_page_is_up_to_date() -> None:
    assert brought_up_to_date(PAGE) == PAGE, "python -m infrasight.cli.reference docs/CLI.md"


@pytest.mark.parametrize("name", list(DOCUMENTED))
def test_every_option_is_in_its_place(name: str) -> None:
    section = PAGE.split(f"<!-- options of {name} -->")[1].split("<!-- end -->")[0]
    for row in describe(DOCUMENTED[name]):
        assert all(f"`{flag}`" in section for flag in row.flag.split(", "))


def test_what_up_passes_on_is_the_same_for_the_node() -> None:
    """Its default, and the variable."""
    up, node = ({row.name: (row.env, row.default, row.unit) for row in describe(DOCUMENTED[name])} for name in ("up", "infrasight.node"))
    passed_on = ("probes", "config", "interval_s", "prometheus_port")
    assert [up[name] for name in passed_on] == [node[name] for name in passed_on]


def test_what_up_passes_on_is_the_same_for_the_server() -> None:
    up, server = ([row for row in describe(DOCUMENTED[name]) if row.name.startswith("keep")] for name in ("up", "infrasight.server"))
    assert up == server
    assert len(up) == 2


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_section_and_its_summary(name: str) -> None:
    assert f"\n{'###' if ' ' in name else '##'} infrasight {name}\n" in PAGE
    assert f"| [`{name}`](#infrasight-{name.replace(' ', '-')}) | {COMMANDS[name].summary} |" in PAGE
