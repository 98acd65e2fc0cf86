"""Records of one layout as columns: what is copied out of a ring."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from infrasight.schema.layout import Layout

BLOCK = 2048
"""Records that are turned from rows into columns at a time: 512 KiB of opens, which stay in a core's cache meanwhile."""


class Records:
    """`records["pid"]` is a contiguous array (n,) of a field; an area for a string, `records["path"]`, is (n, capacity) bytes, of which the first
    `path_len` of a row are the string and the rest is anything. `records[mask]` and `records[indices]` are some of the rows, as copies."""

    __slots__ = ("columns", "rows")

    def __init__(self, columns: dict[str, npt.NDArray[Any]], rows: int) -> None:
        self.columns, self.rows = columns, rows

    @classmethod
    def gather(cls, layout: Layout, view: npt.NDArray[np.void]) -> Self:
        """Copies of the records in `view` (n,), which has a dtype of the layout. Of an area only as much is read as the longest string of a block."""
        rows, plain, areas = len(view), layout.plain, layout.areas
        several = rows > BLOCK
        columns = {name: np.empty(rows, view.dtype[name]) if several else view[name].copy() for name in plain}
        columns |= {name: np.empty((rows, capacity), np.uint8) for name, capacity in areas.items()}
        for start in range(0, rows, BLOCK):
            block = view[start : start + BLOCK]
            end = start + len(block)
            for name in plain if several else ():
                columns[name][start:end] = block[name]
            for name in areas:
                longest = int(columns[f"{name}_len"][start:end].max())
                width = -(-longest // 8) * 8
                columns[name][start:end, :width] = block[name][:, :width]
        return cls(columns, rows)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.columns[key]
        columns = {name: column[key] for name, column in self.columns.items()}
        return Records(columns, len(next(iter(columns.values()))))

    @property
    def nbytes(self) -> int:
        """Bytes that all columns take."""
        return sum(column.nbytes for column in self.columns.values())

