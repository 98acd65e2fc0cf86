"""Files with secrets in them, and those beside: never readable by others, never half written, never overwritten by mistake."""

from __future__ import annotations

import os
from pathlib import Path

from infrasight.errors import CommandLineError


def directory_for(path: Path) -> None:
    """Make the directory, for its owner only, if it is not there. CommandLineError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandLineError(f"{path}: {error.strerror}") from None


def write_new(file: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a file that is not there yet. CommandLineError when it is, or cannot be written."""
    try:
        _write(file, content, secret)
    except FileExistsError:
        raise CommandLineError(f"{file} is there already, and is not overwritten") from None
    except OSError as error:
        raise CommandLineError(f"{file}: {error.strerror}") from None


def written_anew(file: Path, content: bytes, *, secret: bool = False) -> None:
    """Write a file, in place of the one that is there if so: who reads it sees all of the one or all of the other. CommandLineError."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.unlink(missing_ok=True)
        _write(scratch, content, secret)
        scratch.replace(file)
    except OSError as error:
        raise CommandLineError(f"{file}: {error.strerror}") from None


def _write(file: Path, content: bytes, secret: bool) -> None:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if secret else 0o644), "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
