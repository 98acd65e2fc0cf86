"""Which rows of a batch a subscriber wants, decided on columns: on each distinct value once, never row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.errors import InvalidRequest
from infrasight.schema import KINDS
from infrasight.wire import SubscribeRequest

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


class Filter:
    """A SubscribeRequest made ready. A kind without a column that is asked about does not pass."""

    def __init__(self, request: SubscribeRequest) -> None:
        """InvalidRequest for a kind that does not exist."""
        for kind in request.kinds:
            if kind not in KINDS:
                raise InvalidRequest(f"there is no event kind {kind[:64]!r}: there are {', '.join(KINDS)}")
        self._kinds = frozenset(request.kinds) or frozenset(KINDS)
        tests: dict[str, Callable[[pa.Array], Mask] | None] = {
            "node": _any_of(map(_bytes, request.nodes)),
            "comm": _any_of(map(_bytes, request.comms)),
            "user": _any_of(map(_bytes, request.users)),
            "pid": _any_of(request.pids),
            "uid": _any_of(request.uids),
            "image": _has(map(_bytes, request.images)),
            "pod_name": _begins_with(map(_bytes, request.pods)),
            "ancestors": _descends_from(map(_bytes, request.ancestors)),
        }
        self._path = _begins_with(map(_bytes, request.path_prefixes))
        self._tests = {column: test for column, test in tests.items() if test is not None}
        containers = {"container_id": _begins_with(map(_bytes, request.containers)), "container_name": _any_of(map(_bytes, request.containers))}
        self._containers = {column: test for column, test in containers.items() if test is not None}

    def rows(self, kind: str, batch: pa.RecordBatch) -> Rows:
        """Numbers of the rows that pass."""
        if kind not in self._kinds or not self._tests.keys() | self._containers.keys() <= set(batch.schema.names):
            return np.empty(0, np.int64)
        mask = np.ones(batch.num_rows, np.bool_)
        for column, test in self._tests.items():
            mask &= _by_value(batch.column(column), test)
        if self._containers:
            mask &= np.logical_or.reduce([_by_value(batch.column(column), test) for column, test in self._containers.items()])
        if self._path:
            found = [_by_value(batch.column(column), self._path) for column in KINDS[kind].paths]
            mask &= np.logical_or.reduce(found) if found else False
        return np.flatnonzero(mask)


def _by_value(column: pa.Array, test: Callable[[pa.Array], Mask]) -> Mask:
    if isinstance(column, pa.DictionaryArray):
        return test(column.dictionary)[column.indices.to_numpy()] if len(column) else np.empty(0, np.bool_)
    return test(column)


def _any_of(values: Iterable[bytes] | Iterable[int]) -> Callable[[pa.Array], Mask] | None:
    wanted = list(values)
    if not wanted:
        return None
    return lambda column: _mask(pc.is_in(column, pa.array(wanted, column.type)))


def _begins_with(prefixes: Iterable[bytes]) -> Callable[[pa.Array], Mask] | None:
    wanted = list(prefixes)
    if not wanted:
        return None
    return lambda column: np.logical_or.reduce([_mask(pc.starts_with(column, prefix)) for prefix in wanted])


def _has(parts: Iterable[bytes]) -> Callable[[pa.Array], Mask] | None:
    wanted = list(parts)
    if not wanted:
        return None
    return lambda column: np.logical_or.reduce([_mask(pc.match_substring(column, part)) for part in wanted])


def _descends_from(names: Iterable[bytes]) -> Callable[[pa.Array], Mask] | None:
    """Of lineages, as they travel: names with NUL between them."""
    wanted = frozenset(names)
    if not wanted:
        return None
    return lambda column: np.array([not wanted.isdisjoint(lineage.split(b"\0")) for lineage in column.to_pylist()], np.bool_)


def _mask(column: pa.Array) -> Mask:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.bool_)


def _bytes(value: str) -> bytes:
    return value.encode()
