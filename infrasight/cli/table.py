"""A table of text for people: aligned, safe to show, and of any length in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from infrasight.present.safe import printable, width_of

SAMPLE_ROWS = 1000
"""Rows that decide how wide the columns are; a wider value further down pushes the rest of its row to the right."""


async def table(names: Sequence[str], numeric: Sequence[bool], rows: AsyncIterator[Sequence[str]]) -> AsyncIterator[str]:
    """The lines of a table: a header, a rule, the rows. Numbers are aligned to the right. Every row is as long as `names`."""
    sample = [list(map(printable, names))]
    async for row in rows:
        sample.append(list(map(printable, row)))
        if len(sample) > SAMPLE_ROWS:
            break
    widths = [max(map(width_of, column)) for column in zip(*sample, strict=True)]
    for number, each in enumerate(sample):
        yield _line(each, widths, numeric)
        if number == 0:
            yield "  ".join("─" * width for width in widths)
    async for row in rows:
        yield _line(list(map(printable, row)), widths, numeric)


def _line(values: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    return "  ".join(_padded(*cell) for cell in zip(values, widths, numeric, strict=True)).rstrip()


def _padded(value: str, width: int, to_the_right: bool) -> str:
    blanks = " " * (width - width_of(value))
    return blanks + value if to_the_right else value + blanks
