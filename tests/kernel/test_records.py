"""Records as columns: what is gathered from a view of a ring is what lies there, as far as it counts."""

import numpy as np
import pytest

from infrasight.kernel import Records
from infrasight.kernel.records import BLOCK
from infrasight.schema import KINDS, PROBES
from infrasight.schema.columns import Length
from infrasight.schema.kinds import records_of
from infrasight.schema.layout import Layout, layouts, stride

ALL = [each for name in PROBES for each in layouts(KINDS[name])]


def view_of(layout: Layout, rows: int) -> np.ndarray:
    """Rubbish, but for lengths, which the kernel bounds."""
    apart = stride(records_of(layout.ring))
    view = np.random.default_rng(3).integers(0, 256, rows * apart, np.uint8).view(layout.dtype(apart))
    for area in layout.kind.areas:
        view[f"{area.name}_len"] %= layout.member(area.name).size + 1
    return view


@pytest.mark.parametrize("layout", ALL, ids=lambda each: each.name)
@pytest.mark.parametrize("rows", [1, 100, BLOCK, BLOCK + 1])
def test_everything_is_gathered(layout: Layout, rows: int) -> None:
    view = view_of(layout, min(rows, 200) if layout.length is Length.LONG else rows)
    records = Records.gather(layout, view)
    assert len(records) == len(view)
    assert set(records.columns) == {member.name for member in layout.members} - {"_padding"}
    for name in layout.plain:
        assert records[name].tobytes() == np.ascontiguousarray(view[name]).tobytes()
        assert records[name].flags.c_contiguous
    for area in layout.kind.areas:
        lengths = records[f"{area.name}_len"]
        inside = np.arange(layout.member(area.name).size) < lengths[:, None]
        assert np.array_equal(records[area.name][inside], view[area.name][inside])
    assert records.nbytes >= sum(column.nbytes for column in records.columns.values()) > 0


@pytest.mark.parametrize("layout", ALL, ids=lambda each: each.name)
def test_a_length_that_is_rubbish_does_no_harm(layout: Layout) -> None:
    """As in a record that was discarded before it was filled."""
    view = view_of(layout, 3)
    for area in layout.kind.areas:
        view[f"{area.name}_len"] = 2**32 - 1
        assert np.array_equal(Records.gather(layout, view)[area.name], view[area.name])


def test_what_is_gathered_is_a_copy() -> None:
    layout, *_ = layouts(KINDS["open"])
    view = view_of(layout, 10)
    records, before = Records.gather(layout, view), view["pid"].copy()
    view["pid"] = 0
    view["path"] = 0
    assert np.array_equal(records["pid"], before)
    assert records["path"].any()


def test_some_of_the_rows() -> None:
    layout, *_ = layouts(KINDS["open"])
    records = Records.gather(layout, view_of(layout, 10))
    odd = records[np.arange(10) % 2 == 1]
    assert (len(odd), odd["pid"].tolist()) == (5, records["pid"][1::2].tolist())
    assert np.array_equal(odd["path"], records["path"][1::2])
    assert records[np.array([7, 0, 7])]["tid"].tolist() == records["tid"][[7, 0, 7]].tolist()
    nobody = records[np.zeros(10, bool)]
    assert (len(nobody), nobody["pid"].tolist()) == (0, [])


def test_no_rows() -> None:
    layout, *_ = layouts(KINDS["open"])
    assert len(Records.gather(layout, view_of(layout, 0))) == 0
