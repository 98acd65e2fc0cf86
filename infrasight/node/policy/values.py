"""One value of the configuration file at a time: from what TOML gives to what the kernel compares. ValueError says in a few words what is wrong."""

from __future__ import annotations

import re
import stat
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path

from infrasight.kernel.rules import Network
from infrasight.node.containers.hierarchy import Hierarchy, hierarchies
from infrasight.schema.parts import COMM_LEN, PATH_MAX

RANGE_MOST = 4096
"""Uids in one range."""
COMPONENTS_MOST = 32
"""Components of a path: so many prefixes of a path does the kernel look up."""
WINDOW_MOST_S = 3600

_UID_END = 2**32 - 1
"""(uid_t)-1 is nobody's: it means "leave as it is" (setreuid(2))."""
_UNITS_NS = {"ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10}))?")
_WINDOW = re.compile(r"([0-9]{1,10})(ms|s|m|h)")
_TYPES = {bool: "true or false", int: "a whole number", float: "a number with a point", str: "a string", list: "a list", dict: "a table"}


def type_name(value: object) -> str:
    """What people call the type of a TOML value."""
    return _TYPES.get(type(value), "a date or time")


def shown(value: object) -> str:
    """A value as an error shows it: quoted, escaped, and cut when it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."


def whole(value: object, least: int, most: int) -> int:
    """A whole number from `least` to `most`; true is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"a whole number is wanted, not {type_name(value)}")
    if not least <= value <= most:
        raise ValueError(f"{shown(value)} is not between {least} and {most}")
    return value


def text(value: object, what: str = "a string") -> str:
    """A string that the kernel could hold: not empty, no NUL."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is wanted, not {type_name(value)}")
    if not value or "\0" in value:
        raise ValueError(f"{what} is wanted, not {shown(value)}")
    return value


def components(value: str) -> list[str]:
    """The parts of an absolute path."""
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if not value.startswith("/"):
        raise ValueError(f"{shown(value)} does not begin with /")
    if ".." in parts:
        raise ValueError(f"{shown(value)} has a '..', which only the file system could resolve")
    return parts


def comm(value: object) -> bytes:
    """The exact name of a thread."""
    name = text(value, "a thread's name").encode()
    if len(name) >= COMM_LEN:
        raise ValueError(f"{shown(value)} is longer than {COMM_LEN - 1} bytes, and a thread's name never is")
    return name


def path(value: object) -> bytes:
    """An absolute path, without doubled slashes and one at the end."""
    parts = components(text(value, "a path"))
    if len(parts) > COMPONENTS_MOST:
        raise ValueError(f"{shown(value)} has {len(parts)} components, and {COMPONENTS_MOST} is the most")
    clean = ("/" + "/".join(parts)).encode()
    if len(clean) >= PATH_MAX:
        raise ValueError(f"{shown(value)} is longer than {PATH_MAX - 1} bytes")
    return clean


def network(value: object) -> Network:
    """An IPv4 or IPv6 network; an address is a network of one."""
    written = text(value, "an address or a network")
    try:
        if "%" not in written:
            return ip_network(written)
    except ValueError as error:
        if "host bits" in str(error):
            wide = ip_network(written, strict=False)
            raise ValueError(f"{shown(value)} has bits set behind its prefix: the network is {str(wide)!r}") from None
    raise ValueError(f"{shown(value)} is no IPv4 or IPv6 address or network")


def window(value: object) -> int:
    """A time such as "10s", in nanoseconds."""
    match = _WINDOW.fullmatch(text(value, "a time such as '10s'"))
    if not match:
        raise ValueError(f"{shown(value)} is no time such as '10s' (units: {', '.join(_UNITS_NS)})")
    time_ns = int(match[1]) * _UNITS_NS[match[2]]
    if time_ns > WINDOW_MOST_S * 10**9:
        raise ValueError(f"{shown(value)} is longer than an hour")
    return time_ns


class Host:
    """What only this machine can resolve: names of users, and places of cgroups. Files are read when they are first asked for."""

    def __init__(self, passwd: Path, mounts: Path) -> None:
        self._passwd, self._mounts = passwd, mounts

    def uids(self, value: object) -> range:
        """A number, a name, or a range ("1000-1999", both ends in it)."""
        if not isinstance(value, str):
            uid = whole(value, 0, _UID_END - 1)
            return range(uid, uid + 1)
        match = _RANGE.fullmatch(value)
        if not match:
            uid = self._uid(text(value, "a user"))
            return range(uid, uid + 1)
        first, last = (whole(int(end), 0, _UID_END - 1) for end in (match[1], match[2] or match[1]))
        if not 0 <= last - first < RANGE_MOST:
            raise ValueError(f"{shown(value)} is no range of 1 to {RANGE_MOST} users")
        return range(first, last + 1)

    def cgroup(self, value: object) -> int:
        """A cgroup's id, given as such or by its path below the mount: the id is the inode of its directory."""
        if not isinstance(value, str):
            return whole(value, 1, 2**64 - 1)
        place = self._cgroups.top.joinpath(*components(text(value, "a cgroup")))
        try:
            found = place.stat()
        except OSError as error:
            raise ValueError(f"no cgroup {shown(value)} below {self._cgroups.top}: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode):
            raise ValueError(f"{shown(value)} is a file and no cgroup")
        return self._cgroups.id(found.st_ino)

    def _uid(self, name: str) -> int:
        uid = self._users.get(name.encode())
        if uid is None:
            raise ValueError(f"no user is called {shown(name)}")
        return uid

    @cached_property
    def _users(self) -> dict[bytes, int]:
        """passwd(5): name, password, number, and so on; of two lines for a name the first counts, as it does for the C library."""
        users: dict[bytes, int] = {}
        for line in _read(self._passwd).splitlines():
            fields = line.split(b":")
            if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10 and int(fields[2]) < _UID_END:
                users.setdefault(fields[0], int(fields[2]))
        return users

    @cached_property
    def _cgroups(self) -> Hierarchy:
        """The v2 hierarchy, or else that of v1 by which events tell cgroups apart."""
        try:
            found = hierarchies(self._mounts)
        except OSError as error:
            raise ValueError(f"cannot read {self._mounts}: {error.strerror}") from None
        if not found:
            raise ValueError("no cgroup hierarchy is mounted here, neither v2 nor that of pids, so only ids can be given")
        return found[0]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from None


def truth(value: object) -> bool:
    """true or false. ValueError for anything else."""
    if not isinstance(value, bool):
        raise ValueError(f"true or false is wanted, not {shown(value)}")
    return value
