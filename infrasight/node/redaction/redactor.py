"""Secrets do not leave the node: columns without them. What looks like one is in `rules`, `shapes` and `options`.

Nothing here is done for each row. All arguments of a batch are looked through at once for what hints at a secret; what is left over is nearly
always nothing, and is then masked once for each different command line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from infrasight.node.columns import encode, numbers, numbers_of, renamed, strings
from infrasight.node.redaction.command_line import masked
from infrasight.node.redaction.options import NAME, PROGRAMS, READ_HINTS
from infrasight.node.redaction.rules import MASK, RULES, URL_RULES, Table, is_secret
from infrasight.node.redaction.shapes import SHAPES
from infrasight.schema import KINDS, Type

GROUP = "secret"
"""What an operator's pattern calls the part that is masked."""
SMALL = 8192
"""Bytes up to which looking for each hint by itself costs less than Arrow needs to begin."""
_AGAIN = 32
"""How often in one argument an operator's pattern is followed; what is behind that is masked whole."""
_URL = b":/"
_PATHS = ("exe", "cwd")
"""Paths among the columns that are names."""


def _shortest(hints: set[bytes]) -> tuple[bytes, ...]:
    """Those that say all: not the ones that have another in them."""
    return tuple(sorted(hint for hint in hints if not any(other in hint for other in hints - {hint})))


HINTS: tuple[bytes, ...] = _shortest(
    {
        *READ_HINTS,
        *(hint for rule in (*RULES, *SHAPES, *(program.rule for programs in PROGRAMS.values() for program in programs)) for hint in rule.hints),
    }
)
"""Lower-case; a command line with none of them in it has no secret that we would know."""
_HINT = "(?i)" + "|".join(re.escape(hint.decode()) for hint in HINTS)
_SETTINGS = Table(RULES)
NAMES: tuple[str, ...] = tuple(dict.fromkeys([*(rule.name for rule in (*RULES, *SHAPES)), NAME, "mount"]))
"""What the rules are counted under."""


def own_name(number: int) -> str:
    """What the operator's pattern of that number, from 0, is counted under."""
    return f"patterns[{number}]"


@dataclass(frozen=True)
class Redaction:
    """What is masked. `patterns` and `keep` are regular expressions of RE2, which take time in proportion to the text, whatever they are: what is
    masked besides, in each argument, and which whole arguments stay as they are. All have passed `check` or `check_kept`."""

    enabled: bool = True
    patterns: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def check(pattern: str) -> str:
    """The pattern as it is followed: all of it is masked unless a group `(?P<secret>...)` says what. ValueError says what is wrong with it."""
    grouped = pattern if f"(?P<{GROUP}>" in pattern else f"(?P<{GROUP}>{pattern})"
    try:
        found = pc.extract_regex_span(strings([b""]), grouped)
    except pa.ArrowInvalid as error:
        reason = _reason(error)
        if "unnamed groups" in reason:
            reason = f"a group is to be (?:...), or (?P<{GROUP}>...) for what is masked"
        raise ValueError(reason) from None
    if found.type.num_fields != 1:
        raise ValueError(f"only one group has a name, (?P<{GROUP}>...)")
    if found[0].is_valid:
        raise ValueError("it matches nothing at all, and so everywhere")
    return grouped


def check_kept(pattern: str) -> str:
    """The pattern as it is. ValueError says what is wrong with it."""
    try:
        pc.match_substring_regex(strings([b""]), pattern)
    except pa.ArrowInvalid as error:
        raise ValueError(_reason(error)) from None
    return pattern


def _reason(error: pa.ArrowInvalid) -> str:
    return " ".join(str(error).removeprefix("Invalid regular expression: ").split())


class Redactor:
    """Follows a `Redaction`, and counts in `counts` what it masked, by rule, since the start."""

    def __init__(self) -> None:
        self._redaction = Redaction()
        self.counts: Counter[str] = Counter(dict.fromkeys(NAMES, 0))

    def follow(self, redaction: Redaction) -> None:
        """From now on."""
        self._redaction = redaction
        for number in range(len(redaction.patterns)):
            self.counts.setdefault(own_name(number), 0)

    def redacted(self, kind: str, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """All columns of a kind without secrets, in the same order."""
        new = dict(columns)
        if not self._redaction.enabled:
            return new
        if kind == "execve":
            new["argv"], changed = self.command_lines(new["argv"], numbers_of(new["argv_truncated"], np.uint8) != 0)
            new["redacted"] = numbers(changed.astype(np.uint8), pa.uint8())
        elif kind == "mount":
            new["value"] = self._settings(new["key"], new["value"])
        elif kind == "module":
            new["parameters"] = self._texts(new["parameters"], b"=", _SETTINGS)
        for name in _texts_of(kind):
            new[name] = self._texts(new[name], _URL, URL_RULES)
        return new

    def _texts(self, column: pa.DictionaryArray, hint: bytes, rules: Table) -> pa.DictionaryArray:
        """A column of strings, of which those with `hint` in them may have secrets."""
        data = column.dictionary.buffers()[2]
        if not data or hint not in data.to_pybytes():
            return column
        return renamed(column, lambda text: rules.follow(text, self.counts) if hint in text else text)

    def _settings(self, keys: pa.DictionaryArray, values: pa.DictionaryArray) -> pa.DictionaryArray:
        """Values of which the key says that they are secret."""
        if not any(map(is_secret, keys.dictionary.to_pylist())):
            return values
        secret = [is_secret(key) and bool(value) for key, value in zip(keys.to_pylist(), values.to_pylist(), strict=True)]
        self.counts["mount"] += sum(secret)
        return encode([MASK if hide else value for hide, value in zip(secret, values.to_pylist(), strict=True)])

    def command_lines(self, argv: pa.ListArray, cut: npt.NDArray[np.bool_]) -> tuple[pa.ListArray, npt.NDArray[np.bool_]]:
        """Command lines (n,) without secrets, and which of them had some (n,). Of those in `cut` (n,) the end is missing."""
        words, ends = argv.values, numbers_of(argv.offsets, np.int32)
        kept = self._kept(words)
        new: dict[int, bytes] = {}
        for number, pattern in enumerate(self._redaction.patterns):
            found = self._own(words, pattern, kept, own_name(number))
            new, words = new | found, _with(words, found)
        rows = np.flatnonzero(cut | self._hinted(words, ends)).tolist()
        new |= self._masked(words, ends, rows, cut, kept)
        if not new:
            return argv, np.zeros(len(argv), bool)
        changed = np.zeros(len(argv), bool)
        changed[_rows(ends, list(new))] = True
        children = [_with(argv.values, new)]
        return pa.Array.from_buffers(argv.type, len(argv), [None, argv.offsets.buffers()[1]], children=children), changed

    def _kept(self, words: pa.BinaryArray) -> frozenset[int]:
        """Places of words that the operator wants to be left as they are."""
        if not self._redaction.keep:
            return frozenset()
        any_of = "|".join(f"(?:{pattern})" for pattern in self._redaction.keep)
        return frozenset(_true(pc.match_substring_regex(words, rf"\A(?:{any_of})\z")).tolist())

    def _own(self, words: pa.BinaryArray, pattern: str, kept: frozenset[int], name: str) -> dict[int, bytes]:
        """What the operator's pattern changes, by place."""
        places = [place for place in _true(pc.match_substring_regex(words, pattern)).tolist() if place not in kept]
        known: dict[bytes, tuple[bytes, int]] = {}
        new: dict[int, bytes] = {}
        for place in places:
            word = words[place].as_py()
            if word not in known:
                known[word] = _without(word, pattern)
            new[place], count = known[word]
            self.counts[name] += count
        return new

    def _hinted(self, words: pa.BinaryArray, ends: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        """Which command lines may have a secret in them."""
        hinted = np.zeros(len(ends) - 1, bool)
        data = words.buffers()[2]
        if not data:
            return hinted
        if len(data) > SMALL:
            hinted[_rows(ends, _true(pc.match_substring_regex(words, _HINT)))] = True
        elif _any_hint(data.to_pybytes()):
            for row, (start, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
                hinted[row] = _any_hint(b"\0".join(words.slice(start, end - start).to_pylist()))
        return hinted

    def _masked(
        self, words: pa.BinaryArray, ends: npt.NDArray[np.int32], rows: Sequence[int], cut: npt.NDArray[np.bool_], kept: frozenset[int]
    ) -> dict[int, bytes]:
        """What our rules change in some rows, by place; each different command line is looked at once."""
        new: dict[int, bytes] = {}
        known: dict[tuple[bool, frozenset[int], tuple[bytes, ...]], tuple[dict[int, bytes], Counter[str]]] = {}
        for row in rows:
            start, end = int(ends[row]), int(ends[row + 1])
            line = tuple(words.slice(start, end - start).to_pylist())
            mine = frozenset(place - start for place in kept if start <= place < end)
            key = bool(cut[row]), mine, line
            if key not in known:
                counts: Counter[str] = Counter()
                after = masked(line, counts, cut=key[0], kept=mine)
                known[key] = {place: word for place, word in enumerate(after) if word != line[place]}, counts
            found, counts = known[key]
            self.counts.update(counts)
            new |= {start + place: word for place, word in found.items()}
        return new


@cache
def _texts_of(kind: str) -> tuple[str, ...]:
    """Columns of a kind in which a URL can be."""
    return tuple(column.name for column in KINDS[kind].columns if column.type is Type.TEXT or column.name in _PATHS)


def _any_hint(text: bytes) -> bool:
    low = text.lower()
    return any(hint in low for hint in HINTS)


def _rows(ends: npt.NDArray[np.int32], places: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows that the words at `places` are in."""
    return np.searchsorted(ends, places, side="right") - 1


def _true(answers: pa.BooleanArray) -> npt.NDArray[np.int64]:
    """Places of what is true."""
    return np.flatnonzero(np.unpackbits(np.frombuffer(answers.buffers()[1], np.uint8), bitorder="little")[: len(answers)])


def _without(word: bytes, pattern: str) -> tuple[bytes, int]:
    """A word without what an operator's pattern finds in it, and how much that is."""
    parts: list[bytes] = []
    for found in range(_AGAIN):
        span = pc.extract_regex_span(strings([word]), pattern)[0].as_py()
        start, length = span[GROUP] if span else (0, 0)
        if not length:
            return b"".join([*parts, word]), found
        parts += [word[:start], MASK]
        word = word[start + length :]
    return b"".join([*parts, MASK]), _AGAIN


def _with(words: pa.BinaryArray, new: Mapping[int, bytes]) -> pa.BinaryArray:
    """`words` with others at some places."""
    if not new:
        return words
    order = np.arange(len(words), dtype=np.int64)
    order[list(new)] = np.arange(len(words), len(words) + len(new))
    return pa.concat_arrays([words, strings(list(new.values()))]).take(numbers(order, pa.int64()))
