"""Text from the kernel, made safe to show: nothing that is not printable reaches a terminal, and a line stays a line."""

from __future__ import annotations

import re
import shlex
import unicodedata

_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}
_NEEDS_QUOTES = re.compile(r"[^\w@%+=:,./\\-]")


def text_of(value: bytes) -> str:
    """Bytes as text: UTF-8, with every other byte written as \\xNN."""
    return value.decode("utf-8", "backslashreplace")


def printable(text: str) -> str:
    """`text` with every character that is not printable escaped: controls, terminal escapes, direction marks, lone surrogates."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    return _NAMED.get(char) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def command(words: list[str]) -> str:
    """An argument list as one would type it: words with blanks or quotes are quoted, the rest is as it is."""
    return " ".join(printable(shlex.quote(word)) if not word or _NEEDS_QUOTES.search(word) else word for word in words)


def width_of(text: str) -> int:
    """Columns that printable text takes in a terminal: two for wide characters, none for combining ones."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """As much of the beginning of `text` as fits in `width` columns."""
    if text.isascii():
        return text[: max(width, 0)]
    for place, char in enumerate(text):
        width -= _columns(char)
        if width < 0:
            return text[:place]
    return text
