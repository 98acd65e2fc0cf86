"""What several tests of the command line need."""

from __future__ import annotations

import pytest

from tests.ports import free_port


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER_ADDR", "SERVER_PORT", "PROMETHEUS_PORT", "TRACER", "NODE_NAME", "NO_COLOR", "INFRASIGHT_DATA_DIR", "INFRASIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
