"""One command line without its secrets: as many arguments as before, each where it was."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from infrasight.node.redaction.options import NAME, PROGRAMS, REMOTE, SHELLS, prints, programs_in, reads_secret
from infrasight.node.redaction.rules import CUT_RULES, NO_SECRET, RULES, Shape, Table
from infrasight.node.redaction.shapes import CUT_SHAPES, SHAPES
from infrasight.node.redaction.shell_words import Word, commands, quoted

DEPTH = 3
"""How many command lines inside of each other are taken apart."""
INSIDE_MOST = 32
"""Words of a command line for a shell in which another is looked for."""
_ASIDE = b"-"
"""What stands for an argument that is looked at by itself, or not at all: nothing that could be a value."""
_WHOLE = Table((*RULES, *SHAPES))
_CUT = Table((*CUT_RULES, *CUT_SHAPES))
_SPACE = re.compile(rb"[ \t\n;]")
_COMMAND_FLAG = re.compile(rb"-\w{0,8}c")
_PIPED = Shape(NAME, (), re.compile(rb"\A(?:[\w.-]{1,64}:)?" + NO_SECRET + rb"(?P<secret>[^\0]++)", re.DOTALL))
"""What a command prints that the next one reads as a secret; a user before it stays."""


def masked(words: Sequence[bytes], counts: Counter[str], *, cut: bool = False, kept: frozenset[int] = frozenset(), depth: int = DEPTH) -> list[bytes]:
    """`words` without secrets; what was masked is counted by rule. `cut`: the end of the last one may be missing. `kept`: places of words that stay
    as they are. `depth`: how many command lines inside of it are taken apart."""
    if not words:
        return []
    words, last = list(words), len(words) - 1
    programs = programs_in(words)
    aside = {place: words[place] for place in kept}
    for place in _command_lines(words, programs) if depth else set():
        if place not in kept:
            aside[place] = in_shell(words[place], counts, cut=cut and place == last, depth=depth - 1)
    for place in aside:
        words[place] = _ASIDE
    found = _WHOLE.follow(b"\0".join(words), counts)
    if cut:
        found = _CUT.follow(found, counts)
    new = found.split(b"\0")
    for name, place in programs.items():
        new = _of_program(new, place, name, counts)
    for place, word in aside.items():
        new[place] = word
    return new


def _of_program(words: list[bytes], place: int, name: bytes, counts: Counter[str]) -> list[bytes]:
    """`words` without what is secret with the program that is named at `place`."""
    for program in PROGRAMS.get(name, ()):
        before, after = b"\0".join(words[: place + 1]), b"\0".join([b"", *words[place + 1 :]])
        start = 0
        if program.when:
            match = program.when.search(after)
            start = match.end() if match else len(after)
        words = (before + after[:start] + program.rule.masked(after[start:], counts)).split(b"\0")
    return words


def _command_lines(words: Sequence[bytes], programs: Mapping[bytes, int]) -> set[int]:
    """Places of words that a shell reads."""
    shell, remote = (min((programs[name] for name in names & programs.keys()), default=len(words)) for names in (SHELLS, REMOTE))
    given = next((place for place in range(shell + 2, len(words)) if _COMMAND_FLAG.fullmatch(words[place - 1])), None)
    spaced = {place for place in range(remote + 1, len(words)) if _SPACE.search(words[place])}
    return spaced if given is None else spaced | {given}


def in_shell(text: bytes, counts: Counter[str], *, cut: bool, depth: int) -> bytes:
    """A command line for a shell without secrets. What it does not need to change, quotes and spaces too, stays as it was."""
    parts, done, inside = [], 0, 0
    for command, behind in pairwise([*commands(text), []]):
        values = [word.value for word in command]
        words = masked(values, counts, cut=cut and command[-1].end == len(text), depth=depth)
        if _pipes_secret(text, command, behind):
            words[-1] = _PIPED.masked(words[-1], counts)
        for word, new in zip(command, words, strict=True):
            if (b"$(" in new or b"`" in new) and depth and inside < INSIDE_MOST:
                inside += 1
                new = in_shell(new, counts, cut=False, depth=depth - 1)
            if new != word.value:
                parts += [text[done : word.start], quoted(new, text[word.start : word.end])]
                done = word.end
    return b"".join([*parts, text[done:]])


def _pipes_secret(text: bytes, command: Sequence[Word], behind: Sequence[Word]) -> bool:
    """Whether the last word of a command is a secret that it gives to the one `behind` it."""
    return (
        bool(behind)
        and text[command[-1].end : behind[0].start].strip() == b"|"
        and prints([word.value for word in command])
        and reads_secret([word.value for word in behind])
    )
