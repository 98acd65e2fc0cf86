"""The tables of the original InfraSight (database `audit`) as views of ours, so that dashboards and queries made for them run unchanged.

Their columns and types are its own. A condition on time or node goes through a view to the keys of our tables. What is not kept here is derived, or
empty or 0: docs/COMPATIBILITY.md says what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from infrasight.schema.ddl import DATABASE, on, quoted, text
from infrasight.schema.events.ptrace import REQUESTS
from infrasight.schema.parts import WHO

ORIGINAL_DATABASE = "audit"
MARK = "InfraSight view "
"""What the comment of a view of ours begins with; a hash of what it is follows."""

_EQUALS = "position(concat(label, '='), '=')"
_PAIRS = f"arrayMap(label -> (substring(label, 1, {_EQUALS} - 1), substring(label, {_EQUALS} + 1)), container_labels)"
_JSON = f"toValidUTF8(toJSONString(CAST({_PAIRS}, 'Map(String, String)')))"

_COMMON: dict[str, tuple[str, str]] = {
    "pid": ("UInt32", "pid"),
    "uid": ("UInt32", "uid"),
    "gid": ("UInt32", "gid"),
    "ppid": ("UInt32", "ppid"),
    "user_pid": ("UInt32", "ns_pid"),
    "user_ppid": ("UInt32", "0"),
    "cgroup_id": ("UInt64", "cgroup_id"),
    "cgroup_name": ("String", "''"),
    "comm": ("String", "comm"),
    "node_name": ("String", "node"),
    "user": ("String", "user"),
    "container_id": ("String", "container_id"),
    "container_image": ("String", "image"),
    # Labels that make no JSON object (the same name twice) are none, and not an error of the whole query.
    "container_labels_json": ("JSON", f"ifNull(accurateCastOrNull({_JSON}, 'JSON'), CAST('{{}}', 'JSON'))"),
    "wall_time_ms": ("Int64", "toUnixTimestamp64Milli(ts)"),
    "wall_time_dt": ("DateTime64(3)", "CAST(ts, 'DateTime64(3)')"),
}
"""Column -> type, and what it is in terms of ours."""
_CALL: dict[str, tuple[str, str]] = {
    "monotonic_ts_enter_ns": ("UInt64", "toUInt64(toUnixTimestamp64Nano(ts))"),
    "monotonic_ts_exit_ns": ("UInt64", "toUInt64(toUnixTimestamp64Nano(ts)) + latency_ns"),
    "return_code": ("Int64", "ret"),
    "latency_ns": ("UInt64", "latency_ns"),
    "latency_ms": ("Float64", "latency_ns / 1e6"),
}
"""What tables of calls have besides."""


@dataclass(frozen=True)
class Part:
    """The rows of a view that are of one kind: `own` is its further columns, in terms of the kind's.

    To ClickHouse the name of a column of ours that a column of the view has too, but for another value, is the latter: `event.NAME` is ours.
    """

    kind: str
    own: Mapping[str, str]
    where: str = ""


@dataclass(frozen=True)
class View:
    """One of the tables. `types`: of its further columns.

    `calls`: whether its rows are of system calls, each with its event_type, which is the kind's name. `vector`: its rows
    are one for each process and moment, of all rows of the kind.
    """

    name: str
    types: Mapping[str, str]
    parts: tuple[Part, ...]
    calls: bool = True
    vector: bool = False
    columns: tuple[tuple[str, str], ...] = field(init=False)
    """Name and type, in order."""

    def __post_init__(self) -> None:
        shared = {name: type for name, (type, _) in (_COMMON | (_CALL if self.calls else {})).items()}
        event_type = {"event_type": "String"} if self.calls else {}
        object.__setattr__(self, "columns", tuple((shared | event_type | dict(self.types)).items()))

    def ddl(self, create: str = "CREATE VIEW IF NOT EXISTS", cluster: str = "") -> str:
        """The statement that makes it; in a cluster, of the tables that are spread over it."""
        columns = ", ".join(f"{quoted(name)} {type}" for name, type in self.columns)
        return f"{create} {ORIGINAL_DATABASE}.{self.name}{on(cluster)} ({columns}) AS\n{self._select()}\nCOMMENT {text(self.comment)}"

    @property
    def comment(self) -> str:
        """What tells that it is ours, and as it is now."""
        return MARK + hashlib.sha256(f"{self.columns}{self._select()}".encode()).hexdigest()[:16]

    def _select(self) -> str:
        return "\nUNION ALL\n".join(self._part(part) for part in self.parts)

    def _part(self, part: Part) -> str:
        source = _by_process(part.kind) if self.vector else f"{DATABASE}.{quoted(part.kind)}"
        what = {name: expression for name, (_, expression) in (_COMMON | (_CALL if self.calls else {})).items()}
        what |= {"event_type": text(part.kind)} if self.calls else {}
        what |= part.own
        columns = ", ".join(f"{what[name]} AS {quoted(name)}" for name, _ in self.columns)
        return f"SELECT {columns} FROM {source} AS event{f' WHERE {part.where}' if part.where else ''}"


def _by_process(kind: str) -> str:
    """The rows of `kind` of one process and moment as one, with a map `vector` of its counts."""
    keys = ("node", "ts", "pid", "process_id")
    used = (column.name for column in WHO if column.name not in keys)
    others = ", ".join(f"any({quoted(name)}) AS {quoted(name)}" for name in used)
    listed = ", ".join(keys)
    return f"(SELECT {listed}, {others}, sumMap(map(toString(number), count)) AS vector FROM {DATABASE}.{quoted(kind)} GROUP BY {listed})"


def _files(kind: str) -> Part:
    return Part(kind, {"filename": "path"})


def _ends(kind: str, name: str) -> Part:
    """Which of the two kinds of address it is, its own text says: a socket of AF_INET6 may have IPv4 ones."""
    own = {"sa_family": "if(family = 'inet', 'AF_INET', 'AF_INET6')", "sport": "toString(sport)", "dport": "toString(dport)", "resolved_domain": name}
    for end in ("saddr", "daddr"):
        six = f"position({end}, ':') > 0"
        own |= {f"{end}_ipv4": f"if({six}, '', {end})", f"{end}_ipv6": f"if({six}, {end}, '')"}
    return Part(kind, own, "family IN ('inet', 'inet6')")


def _request() -> str:
    """The number of a request, of which we keep the name, or the number where it has none."""
    names, numbers = ", ".join(text(name) for name in REQUESTS.values()), ", ".join(str(number) for number in REQUESTS)
    return f"transform(event.request, [{names}], [{numbers}], toInt64OrZero(event.request))"


_ADDRESSES = ("saddr_ipv4", "daddr_ipv4", "sport", "dport", "saddr_ipv6", "daddr_ipv6")
_COUNTERS = {
    "cpu_ns": "cpu_ns",
    "user_faults": "user_faults",
    "kernel_faults": "kernel_faults",
    "vm_mmap_bytes": "mapped_bytes",
    "vm_munmap_bytes": "unmapped_bytes",
    "vm_brk_grow_bytes": "brk_grown_bytes",
    "vm_brk_shrink_bytes": "brk_shrunk_bytes",
    "bytes_written": "bytes_written",
    "bytes_read": "bytes_read",
}

VIEWS: tuple[View, ...] = (
    View("tracing_events", {"filename": "String"}, tuple(map(_files, ("execve", "open", "chmod")))),
    View(
        "network_events",
        {"sa_family": "String", **dict.fromkeys(_ADDRESSES, "String"), "resolved_domain": "Nullable(String)"},
        (_ends("connect", "nullIf(toString(name), '')"), _ends("accept", "NULL")),
    ),
    View(
        "ptrace_events",
        {"request": "Int64", "target_pid": "Int64", "addr": "UInt64", "data": "UInt64", "request_name": "String"},
        (Part("ptrace", {"request": _request(), "target_pid": "target_pid", "addr": "addr", "data": "data", "request_name": "event.request"}),),
    ),
    View(
        "mmap_events",
        dict.fromkeys(("addr", "len", "prot", "flags", "fd", "off"), "UInt64"),
        (Part("mmap", {"addr": "addr", "len": "length", "prot": "prot", "flags": "flags", "fd": "toUInt64(toInt64(fd))", "off": "offset"}),),
    ),
    View(
        "mount_events",
        {"dev_name": "String", "dir_name": "String", "type": "String", "flags": "UInt64"},
        (
            Part("mount", {"dev_name": "source", "dir_name": "target", "type": "fstype", "flags": "flags"}, "call = 'mount'"),
            Part("umount", {"dev_name": "''", "dir_name": "target", "type": "''", "flags": "flags"}),
        ),
    ),
    View(
        "resource_events",
        {**dict.fromkeys(_COUNTERS, "UInt64"), "isActive": "UInt32"},
        (Part("resource", {**_COUNTERS, "isActive": "NOT final"}),),
        calls=False,
    ),
    View(
        "syscall_freq_events",
        {"syscall_vector_json": "JSON"},
        (Part("syscall_freq", {"syscall_vector_json": "CAST(vector, 'JSON')"}),),
        calls=False,
        vector=True,
    ),
)
"""All of them. Of the calls that mount file systems the original sees mount() only."""


def original_database_ddl(cluster: str = "") -> str:
    """CREATE DATABASE IF NOT EXISTS."""
    return f"CREATE DATABASE IF NOT EXISTS {ORIGINAL_DATABASE}{on(cluster)}"


def original_ddl(cluster: str = "") -> list[str]:
    """All statements that make the views, in order."""
    return [original_database_ddl(cluster), *(view.ddl(cluster=cluster) for view in VIEWS)]
