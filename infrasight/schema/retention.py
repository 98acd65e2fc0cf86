"""How long rows are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from infrasight.schema.tables import TABLES

_RULE = re.compile(r"(?P<table>\w+)=(?P<days>\d{1,5})")
DAYS = 30
MAX_DAYS = 36_500


@dataclass(frozen=True)
class Keep:
    """One rule, from text: `open=7` keeps the table `open` for seven days, `open=0` for ever. ValueError for what is none."""

    text: str

    def __post_init__(self) -> None:
        match = _RULE.fullmatch(self.text)
        if match is None or int(match["days"]) > MAX_DAYS:
            raise ValueError(f"{self.text!r} is not TABLE=DAYS, at most {MAX_DAYS}")
        if match["table"] not in TABLES:
            raise ValueError(f"there is no table {match['table']!r}: there are {', '.join(TABLES)}")

    @property
    def rule(self) -> tuple[str, int]:
        """Table and days."""
        table, _, days = self.text.partition("=")
        return table, int(days)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Retention:
    """`days` that rows are kept, 0 for ever, where `tables` does not say otherwise. Rollups and alerts are kept longer than that by themselves.

    `lasting`: tables that are there stay as they are, but for those that `tables` names. So nothing is deleted because an option was left out.
    """

    days: int = 0
    tables: Mapping[str, int] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def of(cls, days: int | None, rules: Iterable[Keep]) -> Retention:
        """From settings; None: `DAYS` for new tables. Of two rules for one table the last counts."""
        return cls(DAYS if days is None else days, dict(each.rule for each in rules), days is None)

    def of_existing(self, name: str) -> int | None:
        """Days of a table that is there; None to leave it as it is."""
        return None if self.lasting and name not in self.tables else self.of_table(name)

    def of_table(self, name: str) -> int:
        """Days, 0 for ever."""
        return self.tables.get(name, max(self.days, TABLES[name].keep_days) if self.days else 0)

    def all(self) -> dict[str, int]:
        """Days by table."""
        return {name: self.of_table(name) for name in TABLES}
