"""Records as they come out of a ring, made by hand; wherever nothing is said, there is rubbish, as in memory that was used before."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infrasight.kernel import Records
from infrasight.schema import KINDS, PROBES
from infrasight.schema.layout import Layout, layouts, stride

RUBBISH = np.random.default_rng(7)
TICK = 10_000_000


def layout_of(name: str) -> Layout:
    """`open`, `open_medium`, `open_long`."""
    return next(each for kind in KINDS.values() if kind.origin == "kernel" for each in layouts(kind) if each.name == name)


def make(name: str, rows: int, /, **values: Any) -> Records:
    """`rows` records; `values` by member, one for all or one a row. An area is given as its bytes, its length follows."""
    each = layout_of(name)
    apart = stride([each])
    view = RUBBISH.integers(0, 256, rows * apart, np.uint8).view(each.dtype(apart))
    view["enter_ns"] >>= 4  # times that fit
    view["probe"] = PROBES.index(each.kind.name)
    for member in each.members:
        if member.ctype.startswith("char["):
            view[member.name] = b""
    for area in each.kind.areas:
        view[f"{area.name}_len"] %= each.member(area.name).size + 1
        if f"{area.name}_whole" in (view.dtype.names or ()):
            view[f"{area.name}_whole"] &= 3
    for key, value in values.items():
        per_row = value if isinstance(value, (list, np.ndarray, range)) else [value] * rows
        assert len(per_row) == rows
        if view.dtype[key].shape:
            _fill(view, key, per_row)
        else:
            view[key] = per_row
    return Records.gather(each, view)


def _fill(view: np.ndarray, key: str, values: Sequence[bytes]) -> None:
    names = view.dtype.names or ()
    for row, value in enumerate(values):
        view[key][row, : len(value)] = np.frombuffer(value, np.uint8)
        if f"{key}_len" in names:
            view[f"{key}_len"][row] = len(value)


def together(*parts: Records) -> Records:
    """One after the other."""
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns}
    return Records(columns, sum(map(len, parts)))


def names(path: bytes) -> bytes:
    """An absolute path as the kernel tells it: the last name first, each ended by a NUL."""
    return b"".join(name + b"\0" for name in reversed(path.removeprefix(b"/").split(b"/"))) if path else b""


def cgroup(action: int, cgroup_id: int, path: bytes, *, parent: int = 1, at: int = 0) -> Records:
    """One `process` record that tells of a cgroup, as the kernel does: of a long path the end."""
    room = layout_of("process").member("file").size
    told = {"file": [path[-room:]], "cut": len(path) > room, "parent_start_ns": parent}
    return make("process", 1, action=action, cgroup_id=cgroup_id, enter_ns=at, **told)


def life(
    action: int,
    pid: int,
    start: int,
    *,
    ppid: int = 0,
    parent_start: int = 0,
    at: int = 0,
    comm: bytes = b"",
    parent: bytes = b"",
    exec_id: int = 0,
    file: bytes = b"",
    cwd: bytes = b"",
    cwd_key: int = 0,
    cut: int = 0,
    mount_ns: int = 0,
) -> Records:
    """One `process` record; starts are in ticks, `file` and `cwd` paths."""
    return make(
        "process",
        1,
        action=action,
        pid=pid,
        tid=pid,
        ppid=ppid,
        start_ns=start * TICK + 1234,
        parent_start_ns=parent_start * TICK + 5678,
        enter_ns=at,
        latency_ns=0,
        ret=0,
        status=0,
        uid=0,
        gid=0,
        comm=comm,
        parent_comm=parent,
        exec_id=exec_id,
        file=[names(file)],
        cwd=[names(cwd)],
        cwd_key=cwd_key,
        cut=cut,
        mount_ns=mount_ns,
    )
