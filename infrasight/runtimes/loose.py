"""JSON of a stranger: what is there and of the right kind, and nothing in place of the rest."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parsed(text: bytes | str) -> Any:
    """What JSON says; None when it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def inside(told: Any, *names: str) -> dict[str, Any]:
    """The object at these names; an empty one where there is none."""
    for name in names:
        told = told.get(name) if isinstance(told, dict) else None
    return told if isinstance(told, dict) else {}


def several(told: Any) -> list[Any]:
    """A list as it is; an empty one in place of anything else."""
    return told if isinstance(told, list) else []


def text(told: Any, name: str) -> str:
    """The text by this name; empty where there is none."""
    found = told.get(name) if isinstance(told, dict) else None
    return found if isinstance(found, str) else ""


def texts(told: dict[str, Any]) -> dict[str, str]:
    """Those of an object's members that are text."""
    return {name: value for name, value in told.items() if isinstance(value, str)}


def time_ns(text: str) -> int:
    """RFC 3339 as ns since the epoch, to the microsecond; 0 for anything else."""
    with contextlib.suppress(ValueError, TypeError):
        return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1) * 1000
    return 0
