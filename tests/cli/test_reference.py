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


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_section_and_its_summary(name: str) -> None:
    assert f"\n## infrasight {name}\n" in PAGE
    assert f"| [`{name}`](#infrasight-{name}) | {COMMANDS[name].summary} |" in PAGE
