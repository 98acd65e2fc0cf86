"""A TOML file as tables that know their place in it, so that whatever is wrong is told in one line. What may be in them is not known here."""

from __future__ import annotations

import difflib
import re
import stat
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from infrasight.errors import SettingsError
from infrasight.node.policy import values

SIZE_MOST = 1 << 20
"""Bytes of a file."""
LIST_MOST = 1024
"""Values that a list stands for: there is room for no more anywhere (`policy.MOST`), and a mistyped range is not to take up memory."""
STRINGS_MOST = 64
"""Items of a list of which each costs time for every event."""

Value = TypeVar("Value")
_BARE = re.compile(r"[A-Za-z0-9_-]{1,40}")


@dataclass(frozen=True)
class Table:
    """A table of the document, and where in it that is: "" or "probe.open.deny"."""

    place: str
    content: Mapping[str, object]

    def __contains__(self, key: str) -> bool:
        return key in self.content

    def at(self, key: str) -> str:
        """A key's place, fit for one line."""
        return ".".join(part for part in (self.place, key if _BARE.fullmatch(key) else values.shown(key)) if part)

    def table(self, key: str) -> Table:
        """The table at `key`; an empty one when there is none."""
        content = self.content.get(key, {})
        if not isinstance(content, dict):
            raise SettingsError(f"{self.at(key)}: a table is wanted, not {values.type_name(content)}")
        return Table(self.at(key), content)

    def value(self, key: str, read: Callable[[object], Value]) -> Value:
        """What `read` makes of the value at `key`, which is there."""
        try:
            return read(self.content[key])
        except ValueError as error:
            raise SettingsError(f"{self.at(key)}: {error}") from None

    def items(self, key: str, read: Callable[[object], Iterable[Value]]) -> frozenset[Value] | None:
        """All that `read` makes of the items of the list at `key`; None when there is no list."""
        return self.value(key, lambda value: _all(_items(value), read)) if key in self else None

    def strings(self, key: str, read: Callable[[object], str]) -> tuple[str, ...]:
        """What `read` makes of each item of the list at `key`, in order; none when there is no list."""
        return self.value(key, lambda value: _in_order(_items(value), read)) if key in self else ()

    def check_keys(self, known: Collection[str], what: str = "key") -> None:
        """SettingsError for a key that is none of `known`; `what` is what they are names of."""
        for key in self.content:
            if key not in known:
                raise SettingsError(f"{self.at(key)}: {unknown(key, known, what)}")


def _items(value: object) -> list[object]:
    """A list, as it is; one that is empty or says something twice is a mistake."""
    if not isinstance(value, list):
        raise ValueError(f"a list is wanted, not {values.type_name(value)}")
    if not value:
        raise ValueError("the list is empty; leave it out")
    seen: set[object] = set()
    for item in (item for item in value if isinstance(item, int | str)):
        if item in seen:
            raise ValueError(f"{values.shown(item)} is there twice")
        seen.add(item)
    return value


def _in_order(items: list[object], read: Callable[[object], str]) -> tuple[str, ...]:
    if len(items) > STRINGS_MOST:
        raise ValueError(f"these are more than {STRINGS_MOST}")
    return tuple(map(read, items))


def _all(items: list[object], read: Callable[[object], Iterable[Value]]) -> frozenset[Value]:
    found: set[Value] = set()
    for item in items:
        found.update(read(item))
        if len(found) > LIST_MOST:
            raise ValueError(f"these are more than {LIST_MOST}, and there is no room for them")
    return frozenset(found)


def unknown(name: str, known: Collection[str], what: str = "key") -> str:
    """What to say of a name that is none of `known`."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"no such {what}; did you mean {near[0]!r}?" if near else f"no such {what}, only {', '.join(known)}"


def read(path: Path) -> Table:
    """The whole document. SettingsError when it cannot be read, or is no TOML."""
    return _parsed(_bytes(path))


def _bytes(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError("is not an ordinary file")
        with path.open("rb") as file:
            content = file.read(SIZE_MOST + 1)
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}") from None
    if len(content) > SIZE_MOST:
        raise SettingsError("is larger than 1 MiB")
    return content


def _parsed(content: bytes) -> Table:
    try:
        return Table("", tomllib.loads(content.decode()))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"not UTF-8 (at line {line})") from None
    except RecursionError:
        raise SettingsError("nested too deeply") from None
    except ValueError as error:  # tomllib's own, and int's for numbers of thousands of digits
        end = f"at line {len(content.splitlines())}, the end"
        raise SettingsError(" ".join(str(error).replace("at end of document", end).split())) from None
