"""Events of the original InfraSight's agents as batches of our kinds (docs/COMPATIBILITY.md has the table of what becomes what).

What such an agent cannot know is empty or 0, but where 0 would say something: see `_COMMON`.
"""

from __future__ import annotations

import functools
import ipaddress
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from infrasight.schema import KINDS, Column, Type, arrow_schema
from infrasight.schema.arrow import DICTIONARY, TYPES
from infrasight.schema.events.ptrace import REQUESTS
from infrasight.schema.events.syscall_freq import CALL_NUMBERS
from infrasight.wire.original import OriginalEvent

MAX_EVENT_BYTES = 128 << 10
"""Of one event: a path, some labels and some hundred counts are a tenth of it."""
TEXT_BYTES, NAME_BYTES, LABEL_BYTES = 4096, 1024, 1024
"""Bytes of a path, of other text, and of a label with its name."""
MAX_LABELS = 64
"""Labels that are kept, in the order of their names: as many as of our own nodes (infrasight/runtimes/facts.py)."""
MAX_PAST_NS, MAX_FUTURE_NS = 90 * 86_400 * 10**9, 86_400 * 10**9
"""How far from now an event may be: a batch spans a hundred days at most, and one wrong clock must not cost the others of it."""
_NOBODY = 2**32 - 1
_AT_FDCWD = -100
_FAMILIES = {b"AF_INET": b"inet", b"AF_INET6": b"inet6", b"UNKNOWN": b"unspec", b"": b"unspec"}
_MASK_32, _SIGN_32, _WRAP_32 = 0xFFFFFFFF, 1 << 31, 1 << 32

Values = tuple[Any, ...]


class Refused(Exception):
    """Why an event is not taken: one of a fixed number of texts."""


class Gathered:
    """Rows of events that have come, by kind, until they are made into batches."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Values]] = {}
        self.rows = 0
        self.bytes = 0
        """As they came."""
        self.oldest_ns = 0
        """Enter time of the oldest, ns since the epoch; 0 when there is none."""

    def add(self, event: OriginalEvent, nbytes: int) -> tuple[str, int]:
        """Add the rows of an event that took `nbytes`; their kind and number. Refused when it is not taken."""
        name = event.about.get("event_type", b"")
        plan = _PLANS.get(name)  # type: ignore[arg-type]  # text is bytes
        if plan is None:
            raise Refused("no such event_type")
        if event.payload != plan.payload:
            raise Refused(f"{plan.kind} without {plan.payload}")
        common = tuple(get(event) for get in _COMMON.values())
        specific = plan.rows(event.said)
        self._rows.setdefault(plan.kind, []).extend(common + each for each in specific)
        self.rows += len(specific)
        self.bytes += nbytes
        self.oldest_ns = min(self.oldest_ns or common[0], common[0])
        return plan.kind, len(specific)

    def batches(self) -> list[tuple[str, pa.RecordBatch]]:
        """All rows: kind, batch."""
        return [(kind, _batch(kind, rows)) for kind, rows in self._rows.items() if rows]


def _batch(kind: str, rows: list[Values]) -> pa.RecordBatch:
    told = dict(zip((*_COMMON, *_COLUMNS[kind]), zip(*rows, strict=True), strict=True))
    arrays = [_array(column, told.get(column.name), len(rows)) for column in KINDS[kind].columns]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(kind))


def _array(column: Column, values: Values | None, rows: int) -> pa.Array:
    """The column; of its default where there are no values."""
    type = TYPES[column.type]
    if values is None and type == DICTIONARY:
        return pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), pa.array([b""], pa.binary()))
    if values is None and column.type is Type.WORDS:
        return pa.array([[]] * rows, type)
    if type == DICTIONARY:
        return pa.array(values, pa.binary()).dictionary_encode()
    if column.type is Type.TIME:
        return pa.array(np.zeros(rows, np.int64) if values is None else values, pa.int64()).cast(type)
    return pa.array(np.zeros(rows, type.to_pandas_dtype()) if values is None else values, type)


# What each event says of who did it.

E = OriginalEvent
Get = Callable[[E], Any]


def _number(name: str) -> Get:
    return lambda event: event.about.get(name, 0)


def _name(name: str) -> Get:
    return lambda event: _short(name, event.about.get(name, b""))


def _label(name: bytes) -> Get:
    return lambda event: event.labels.get(name, b"").partition(b"\0")[0][:NAME_BYTES]


def _short(name: str, value: Any, most: int = NAME_BYTES) -> bytes:
    """The text up to the first NUL: it is a C string's."""
    text: bytes = value.partition(b"\0")[0]
    if len(text) > most:
        raise Refused(f"{name} is longer than {most} bytes")
    return text


def _entered(event: E) -> int:
    """When the call was entered: the agent looks at its clock when it has read the event, after the call. One that does not say: on arrival."""
    now, told, latency = time.time_ns(), event.about.get("timestamp_unix_ms", 0), event.about.get("latency_ns", 0)
    entered = (int(told) * 1_000_000 if told else now) - int(latency)
    if not now - MAX_PAST_NS <= entered <= now + MAX_FUTURE_NS:
        raise Refused("the time is too far from now")
    return entered


def _group(event: E) -> bytes:
    return str(event.about.get("gid", 0)).encode()


def _labels(event: E) -> bytes:
    """As our own nodes tell them: name=value each, by name, cut where they are long. Whoever makes a container chooses them, so none of them is a
    reason to refuse what it does; one that would be read as another is left out."""
    words = [b"%b=%b" % label for label in sorted(event.labels.items()) if label[0] and b"=" not in label[0]]
    return b"\0".join(word.replace(b"\0", b"")[:LABEL_BYTES] for word in words[:MAX_LABELS])


def _identity(event: E) -> bytes:
    return b"complete" if event.about.get("container_image") else b"path" if event.about.get("container_id") else b""


_COMMON: dict[str, Get] = {
    "ts": _entered,
    "node": _name("node_name"),
    "pid": _number("pid"),
    "ppid": _number("ppid"),
    "uid": _number("uid"),
    "gid": _number("gid"),
    "user": _name("user"),
    "group": _group,
    "comm": _name("comm"),
    "ns_pid": _number("user_pid"),
    "cgroup_id": _number("cgroup_id"),
    "euid": _number("uid"),  # 0 would say root
    "login_uid": lambda _: _NOBODY,
    "session_id": lambda _: _NOBODY,
    "container_id": _name("container_id"),
    "image": _name("container_image"),
    "container_labels": _labels,
    "container_name": _label(b"io.kubernetes.container.name"),
    "pod_uid": _label(b"io.kubernetes.pod.uid"),
    "pod_name": _label(b"io.kubernetes.pod.name"),
    "pod_namespace": _label(b"io.kubernetes.pod.namespace"),
    "identity": _identity,
    "latency_ns": _number("latency_ns"),
}
"""Column -> what it is, of any event; a kind without the column passes it over."""


# What the payloads say.

Said = dict[str, Any]


@dataclass(frozen=True)
class _Plan:
    """What becomes of an event_type: `rows` of its payload, each the values of `columns`."""

    type: str
    kind: str
    payload: str
    columns: tuple[str, ...]
    rows: Callable[[Said], list[Values]]


def _text(said: Said, name: str) -> bytes:
    return _short(name, said.get(name, b""), TEXT_BYTES)


def _unsigned(said: Said, name: str) -> int:
    """The 32 bits that the kernel takes of an argument. What else a caller puts into it must not be a reason to refuse the event."""
    value: int = said.get(name, 0)
    return value & _MASK_32


def _signed(said: Said, name: str) -> int:
    """The same of an int."""
    value = _unsigned(said, name)
    return value - _WRAP_32 if value >= _SIGN_32 else value


def _returned(said: Said) -> int:
    returned: int = said.get("return_code", 0)
    return returned


def _execve(said: Said) -> list[Values]:
    return [(_returned(said), _text(said, "filename"), 1)]


def _open(said: Said) -> list[Values]:
    return [(_returned(said), _text(said, "filename"), _AT_FDCWD)]


def _chmod(said: Said) -> list[Values]:
    return [(_returned(said), _text(said, "filename"), _AT_FDCWD, -1)]


@functools.lru_cache(4096)
def _address(text: bytes) -> bytes:
    """As our own nodes write it."""
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        raise Refused("an address that is none") from None
    if getattr(address, "scope_id", None):
        raise Refused("an address that is none")
    return str(address).encode()


def _end(said: Said, side: str) -> bytes:
    """The address of an end: of AF_INET6 it may be an IPv4 one."""
    text: bytes = said.get(f"{side}addrv4", b"") or said.get(f"{side}addrv6", b"")
    return _address(text) if text else b""


def _port(said: Said, name: str) -> int:
    text: bytes = said.get(name, b"")
    if not text:
        return 0
    if len(text) > 5 or not text.isdigit() or int(text) > 65535:
        raise Refused(f"{name} is no port")
    return int(text)


def _ends(said: Said) -> Values:
    family = _FAMILIES.get(said.get("sa_family", b""))
    if family is None:
        raise Refused("sa_family is none")
    return (_returned(said), family, _end(said, "d"), _port(said, "dport"), _end(said, "s"), _port(said, "sport"))


def _connect(said: Said) -> list[Values]:
    name = _short("resolved_domain", said.get("resolved_domain", b""))
    return [(*_ends(said), name, b"reverse" if name else b"")]


def _accept(said: Said) -> list[Values]:
    return [_ends(said)]


def _ptrace(said: Said) -> list[Values]:
    request: int = said.get("request", 0)
    name = REQUESTS.get(request, str(request)).encode()
    return [(_returned(said), name, _signed(said, "target_pid"), said.get("addr", 0), said.get("data", 0))]


def _mmap(said: Said) -> list[Values]:
    numbers = said.get("addr", 0), said.get("len", 0), _unsigned(said, "prot"), _unsigned(said, "flags")
    return [(_returned(said), *numbers, _signed(said, "fd"), said.get("off", 0))]


def _mount(said: Said) -> list[Values]:
    source, target, fstype = _text(said, "dev_name"), _text(said, "dir_name"), _text(said, "type")
    return [(_returned(said), source, target, fstype, said.get("flags", 0), b"mount", -1)]


def _umount(said: Said) -> list[Values]:
    return [(_returned(said), _text(said, "dir_name"), _unsigned(said, "flags"))]


_COUNTERS = {
    "cpu_ns": "cpu_ns",
    "user_faults": "user_faults",
    "kernel_faults": "kernel_faults",
    "mapped_bytes": "vm_mmap_bytes",
    "unmapped_bytes": "vm_munmap_bytes",
    "brk_grown_bytes": "vm_brk_grow_bytes",
    "brk_shrunk_bytes": "vm_brk_shrink_bytes",
    "bytes_written": "bytes_written",
    "bytes_read": "bytes_read",
}
"""Our counter -> theirs."""


def _counted(said: Said, name: str) -> int:
    value = said.get(name, 0)
    if not 0 <= value < 2**64:  # nor NaN
        raise Refused(f"{name} is out of range")
    return int(value)


def _resource(said: Said) -> list[Values]:
    return [(*(_counted(said, name) for name in _COUNTERS.values()), int(not said.get("is_active")))]


def _call(number: int, count: int) -> Values:
    if not 0 <= number < _WRAP_32 or not 0 <= count < 2**64:
        raise Refused("a system call or its count is out of range")
    return b"%d" % number, number, count


def _sys_freq(said: Said) -> list[Values]:
    return [_call(said.get("syscall_id", 0), said.get("count", 0))]


def _vector(said: Said) -> list[Values]:
    """A row for each system call. Names are not known: which machine it was is not said."""
    try:
        vector = json.loads(said.get("vector_json", b""))
        if not isinstance(vector, dict) or not all(type(count) is int for count in vector.values()):
            raise Refused("vector_json is no object of counts")
        counts = {int(number): count for number, count in vector.items() if number.isascii() and number.isdigit()}
    except (ValueError, RecursionError):
        raise Refused("vector_json is no JSON") from None
    if len(counts) != len(vector) or len(counts) > CALL_NUMBERS:
        raise Refused("vector_json is no object of counts")
    return [_call(number, count) for number, count in counts.items()]


_NETWORK = ("ret", "family", "daddr", "dport", "saddr", "sport")
_FREQUENCY = ("syscall", "number", "count")
_PLANS: dict[bytes, _Plan] = {
    plan.type.encode(): plan
    for plan in (
        _Plan("execve", "execve", "snoop", ("ret", "path", "argv_truncated"), _execve),
        _Plan("open", "open", "snoop", ("ret", "path", "dirfd"), _open),
        _Plan("chmod", "chmod", "snoop", ("ret", "path", "dirfd", "fd"), _chmod),
        _Plan("connect", "connect", "network", (*_NETWORK, "name", "name_source"), _connect),
        _Plan("accept", "accept", "network", _NETWORK, _accept),
        _Plan("ptrace", "ptrace", "ptrace", ("ret", "request", "target_pid", "addr", "data"), _ptrace),
        _Plan("mmap", "mmap", "mmap", ("ret", "addr", "length", "prot", "flags", "fd", "offset"), _mmap),
        _Plan("mount", "mount", "mount", ("ret", "source", "target", "fstype", "flags", "call", "fd"), _mount),
        _Plan("umount", "umount", "mount", ("ret", "target", "flags"), _umount),
        _Plan("resource", "resource", "resource", (*_COUNTERS, "final"), _resource),
        _Plan("syscall_freq", "syscall_freq", "sys_freq", _FREQUENCY, _sys_freq),
        _Plan("syscall_freq_agg", "syscall_freq", "syscall_freq_agg", _FREQUENCY, _vector),
    )
}
"""event_type -> what becomes of it."""
_COLUMNS = {plan.kind: plan.columns for plan in _PLANS.values()}
"""By kind; plans of the same one have the same."""
