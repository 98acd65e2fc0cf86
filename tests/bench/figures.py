"""Figures: the values of the repeats, shown as a table or as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

HEADINGS = ("figure", "of", "min", "median", "max", "unit", "goal")
LEFT_ALIGNED = {0, 1, 5, 6}  # names and words; numbers stand to the right


@dataclass(frozen=True)
class Goal:
    """What the project promises of a median."""

    at_most: float | None = None
    at_least: float | None = None

    def reached(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    def __str__(self) -> str:
        bounds = [(">=", self.at_least), ("<=", self.at_most)]
        return " ".join(f"{sign} {plain(bound)}" for sign, bound in bounds if bound is not None)


@dataclass
class Figure:
    """One row: what is measured (`name`), of whom (`subject`), in which unit, once per repeat."""

    name: str
    subject: str
    unit: str
    goal: Goal | None = None
    values: list[float] = field(default_factory=list)

    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return f"{self.goal} {'reached' if self.goal.reached(median(self.values)) else 'MISSED'}"

    def cells(self) -> tuple[str, ...]:
        spread = (min(self.values), median(self.values), max(self.values))
        return (self.name, self.subject, *map(plain, spread), self.unit, self.verdict())

    def as_dict(self) -> dict[str, Any]:
        spread = {"min": min(self.values), "median": median(self.values), "max": max(self.values)}
        goal = {} if self.goal is None else {"goal": str(self.goal), "reached": self.goal.reached(spread["median"])}
        return {"name": self.name, "of": self.subject, "unit": self.unit, **spread, "values": self.values, **goal}


class Figures:
    """All figures of a run, in the order in which they were first added, and notes on what could not be measured."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Figure] = {}
        self.notes: list[str] = []

    def add(self, name: str, subject: str, value: float, unit: str, goal: Goal | None = None) -> None:
        self._figures.setdefault((name, subject), Figure(name, subject, unit, goal)).values.append(value)

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def last(self, name: str, subject: str) -> float | None:
        figure = self._figures.get((name, subject))
        return figure.values[-1] if figure else None

    def all(self) -> list[Figure]:
        return sorted(self._figures.values(), key=lambda figure: [f.name for f in self._figures.values()].index(figure.name))

    def table(self) -> str:
        rows = [HEADINGS, *(figure.cells() for figure in self.all())]
        return "\n".join([*aligned(rows), *(f"note: {note}" for note in self.notes)])

    def as_dict(self) -> dict[str, Any]:
        return {"figures": [figure.as_dict() for figure in self.all()], "notes": self.notes}


def plain(value: float) -> str:
    """A number as people read it: at most four digits that mean something, thousands apart."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The rows with their columns padded to one width."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = [[f"{cell:{'<' if at in LEFT_ALIGNED else '>'}{widths[at]}}" for at, cell in enumerate(row)] for row in rows]
    return ["  ".join(row).rstrip() for row in padded]
