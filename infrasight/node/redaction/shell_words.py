"""A command line for a shell, taken apart into words and put together again: no shell, but enough of one to see which words belong to a command."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

COMMANDS_MOST = 32
"""Commands that are told apart in one text; what is behind them is taken for one."""
_WORD = re.compile(
    rb"(?P<word>(?:[^\s'\"\\;|&()<>`]++|\\.|'[^']*+(?:'|\Z)|\"(?:[^\"\\]++|\\.)*(?:\"|\\?\Z)|\\\Z)+)|(?P<end>[;|&()`\n]++)|[\s<>]++",
    re.DOTALL,
)
_PART = re.compile(rb"'(?P<single>[^']*+)(?:'|\Z)|\"(?P<double>(?:[^\"\\]++|\\.)*)(?:\"|\\?\Z)|\\(?P<one>.)|(?P<bare>[^'\"\\]++)|\\\Z", re.DOTALL)
_ESCAPE = re.compile(rb"\\([\"\\$`\n])")
_BARE = re.compile(rb"[^'\"\\]*+(?=['\"])")
_SAFE = re.compile(rb"[\w@%+=:,./*?&#$~\[\]{}!^-]*")


@dataclass(frozen=True)
class Word:
    """A word as the command gets it, and where in the text it stands."""

    value: bytes
    start: int
    end: int


def commands(text: bytes) -> Iterator[list[Word]]:
    """The words of each simple command in `text`, in order; a quote that is not closed goes to the end."""
    words: list[Word] = []
    found = 0
    for match in _WORD.finditer(text):
        if match["word"] is not None:
            words.append(Word(_value(match["word"]), *match.span()))
        elif match["end"] and words and found < COMMANDS_MOST:
            yield words
            words, found = [], found + 1
    if words:
        yield words


def _value(word: bytes) -> bytes:
    if not any(quote in word for quote in (b"'", b'"', b"\\")):
        return word
    parts = []
    for match in _PART.finditer(word):
        double = match["double"]
        parts.append(_ESCAPE.sub(rb"\1", double) if double is not None else match["single"] or match["one"] or match["bare"] or b"")
    return b"".join(parts)


def quoted(value: bytes, like: bytes) -> bytes:
    """`value` as one word of a command line; where it needs quotes, in those that the word `like` has, and from there on, or else in single ones."""
    if _SAFE.fullmatch(value):
        return value
    before = _BARE.match(like)
    if before and before[0] and value.startswith(before[0]):
        return before[0] + quoted(value[before.end() :], like[before.end() :])
    if like.startswith(b'"'):
        return b'"' + re.sub(rb"([\"\\])", rb"\\\1", value) + b'"'
    return b"'" + value.replace(b"'", b"'\\''") + b"'"
