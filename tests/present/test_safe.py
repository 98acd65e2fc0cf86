"""Hostile text stays on its line and sends nothing to the terminal."""

from __future__ import annotations

import pytest

from infrasight.present.safe import command, cut, printable, text_of, width_of


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain /tmp/ü 日本", "plain /tmp/ü 日本"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[2J", r"\e[2J"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2028\ud800\U000e0041", r"\u2028\ud800\U000e0041"),
    ],
)
def test_only_printable_characters_are_left(hostile: str, shown: str) -> None:
    assert printable(hostile) == shown


def test_every_character_ends_up_printable() -> None:
    assert all(printable(chr(code)).isprintable() for code in range(0x11000))


def test_bytes_that_are_no_text() -> None:
    assert text_of(b"caf\xc3\xa9 \xff\x1b") == "café \\xff\x1b"


def test_a_command_as_one_would_type_it() -> None:
    assert command(["ls", "-la", "/tmp/ü", "a=b"]) == "ls -la /tmp/ü a=b"
    assert command(["sh", "-c", "echo 'hi'; ls", ""]) == """sh -c 'echo '"'"'hi'"'"'; ls' ''"""
    assert command(["printf", "a\nb", "\x1b[0m"]) == r"printf 'a\nb' '\e[0m'"
    assert command([]) == ""


def test_width_counts_columns_not_characters() -> None:
    assert width_of("abc") == 3
    assert width_of("日本") == 4
    assert width_of("e\u0301") == 1


def test_cut_fits() -> None:
    assert cut("abcdef", 3) == "abc"
    assert cut("日本語", 3) == "日"
    assert cut("日本語", 9) == "日本語"
    assert cut("abc", -1) == cut("日", 0) == ""
