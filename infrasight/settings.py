"""Settings as frozen dataclasses: one declaration per setting gives its flag, environment variable, default, unit and help.

    @dataclass(frozen=True)
    class ServerSettings:
        server_port: int = option(50051, env="SERVER_PORT", minimum=0, maximum=65535, help="port of the server")

    settings = parse(ServerSettings, prog="infrasight.server", description="...")

A flag wins over the environment, which wins over the default. A variable set to nothing counts as not set. Types: int, float, str, bool
(`--x/--no-x`), pathlib.Path, tuples such as tuple[str, ...] (a comma list; the flag may be repeated), an enum (by value), any class that
takes a str and raises ValueError, and any of them `| None`.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import os
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from infrasight.errors import SettingsError

Cls = TypeVar("Cls")

_DERIVED = "INFRASIGHT_*"
_TRUTH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclasses.dataclass(frozen=True)
class _Declared:
    help: str
    env: str | None
    unit: str
    flags: tuple[str, ...]
    choices: tuple[str, ...]
    minimum: float | None
    maximum: float | None
    comma: bool


@dataclasses.dataclass(frozen=True)
class Row:
    """One setting as the documentation shows it. `flag` has the short form too; `env` is empty where there is none."""

    name: str
    flag: str
    env: str
    default: str
    unit: str
    help: str


def option(
    default: Any,
    *,
    help: str,
    env: str | None = _DERIVED,
    unit: str = "",
    flags: Sequence[str] = (),
    choices: Sequence[str] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    comma: bool = True,
) -> Any:
    """Declare a field of a settings dataclass.

    `env` is `INFRASIGHT_<FIELD>` unless given; None means that there is none. `flags` replaces the flag derived from the name
    (`("-o", "--output")`); one without a dash is a positional argument, named as the field, which must be given. `choices` are the words
    allowed, `minimum` and `maximum` (inclusive) the numbers, in `unit`. `comma` is whether a tuple's text is split at commas.
    """
    declared = _Declared(help, env, unit, tuple(flags), tuple(choices), minimum, maximum, comma)
    return dataclasses.field(default=default, metadata={"option": declared})


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A declaration together with its field's name, type (of one item, when `many`) and default."""

    name: str
    type: Any
    many: bool
    default: Any
    declared: _Declared

    @property
    def flags(self) -> tuple[str, ...]:
        return self.declared.flags or ("--" + self.name.replace("_", "-"),)

    @property
    def env(self) -> str | None:
        return f"INFRASIGHT_{self.name.upper()}" if self.declared.env == _DERIVED else self.declared.env

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(str(each.value) for each in self.type) if issubclass(self.type, enum.Enum) else self.declared.choices

    def read(self, text: str) -> Any:
        """The value that `text` stands for; ValueError with the reason when it stands for none."""
        if not self.many:
            return self._item(text)
        words = [word.strip() for word in text.split(",")] if self.declared.comma else [text]
        return tuple(self._item(word) for word in words if word)

    def _item(self, text: str) -> Any:
        if self.choices and text not in self.choices:
            raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
        if self.type is bool:
            return _truth(text)
        return self._number(text) if self.type in (int, float) else self.type(text)

    def _number(self, text: str) -> float:
        try:
            value: float = self.type(text)
        except ValueError:
            raise ValueError(f"{text!r} is not {'a whole number' if self.type is int else 'a number'}") from None
        low, high = self.declared.minimum, self.declared.maximum
        if value != value or (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(f"{text} is not {_span(low, high)}")
        return value


def _truth(text: str) -> bool:
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no") from None


def _span(low: float | None, high: float | None) -> str:
    if high is None:
        return f"{low:.12g} or more" if low is not None else "a number"
    return f"between {low:.12g} and {high:.12g}" if low is not None else f"{high:.12g} or less"


def _settings(cls: type[Any]) -> list[_Setting]:
    hints = typing.get_type_hints(cls)
    fields = [each for each in dataclasses.fields(cls) if "option" in each.metadata]
    return [_Setting(each.name, *_plain(hints[each.name]), each.default, each.metadata["option"]) for each in fields]


def _plain(hint: Any) -> tuple[Any, bool]:
    """The class to make a value with, and whether there are many: `int | None` is int, `tuple[str, ...]` is many of str."""
    if isinstance(hint, types.UnionType):
        return _plain(next(each for each in typing.get_args(hint) if each is not types.NoneType))
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    return str(value.value if isinstance(value, enum.Enum) else value)


def describe(cls: type[Any]) -> list[Row]:
    """The settings of `cls` in the order of their declaration."""
    return [_row(each) for each in _settings(cls)]


def _row(setting: _Setting) -> Row:
    flags = ", ".join(setting.flags)
    if setting.type is bool:
        flags += f", --no-{setting.flags[-1].removeprefix('--')}"
    choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
    return Row(setting.name, flags, setting.env or "", _shown(setting.default), setting.declared.unit, setting.declared.help + choices)


def _help(setting: _Setting) -> str:
    default = _shown(setting.default) if setting.default is not False else ""
    notes = [setting.env, f"default {default} {setting.declared.unit}".rstrip() if default else setting.declared.unit]
    inside = "; ".join(note for note in notes if note)
    return (setting.declared.help + (f" [{inside}]" if inside else "")).replace("%", "%%")


def _flag_type(setting: _Setting) -> Any:
    def convert(text: str) -> Any:
        try:
            return setting.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def add_to(parser: argparse.ArgumentParser, cls: type[Any]) -> None:
    """Give `parser` the flags of `cls`; `read` makes the instance from what it parsed."""
    for setting in _settings(cls):
        more: dict[str, Any] = {"help": _help(setting), "default": argparse.SUPPRESS}
        if setting.flags[0].startswith("-"):
            more["dest"] = setting.name
        if setting.type is bool:
            more["action"] = argparse.BooleanOptionalAction
        else:
            more |= {"type": _flag_type(setting), "metavar": "|".join(setting.choices) or setting.name.upper()}
        if setting.many:
            more["action"] = "extend"
        parser.add_argument(*setting.flags, **more)


def read(cls: type[Cls], given: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Cls:
    """The settings from the flags that were `given`, the environment and the defaults. SettingsError names a variable with a bad value."""
    return cls(**{each.name: _value(each, given, environ) for each in _settings(cls)})


def _value(setting: _Setting, given: argparse.Namespace, environ: Mapping[str, str]) -> Any:
    if hasattr(given, setting.name):
        value = getattr(given, setting.name)
        return tuple(value) if setting.many else value
    text = environ.get(setting.env, "") if setting.env else ""
    if not text:
        return setting.default
    try:
        return setting.read(text)
    except ValueError as error:
        raise SettingsError(f"{setting.env}: {error}") from None


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line and an exit with 2; flags are never abbreviated."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line and exit with 2."""
        line = " ".join(message.removeprefix("argument ").split())
        self.exit(2, f"{self.who}: {line} (see {self.prog} --help)\n")

    @property
    def who(self) -> str:
        """What an error begins with."""
        return self.prog


def parse(cls: type[Cls], argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ, *, prog: str, description: str) -> Cls:
    """The settings of a whole process. A bad flag or variable gives one line that names it, and exits with 2."""
    parser = Parser(prog=prog, description=description)
    add_to(parser, cls)
    try:
        return read(cls, parser.parse_args(sys.argv[1:] if argv is None else argv), environ)
    except SettingsError as error:
        parser.error(str(error))
