"""What several tests of the command line need."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SERVER_ADDR", "SERVER_PORT", "PROMETHEUS_PORT", "TRACER", "NODE_NAME", "NO_COLOR", "INFRASIGHT_DATA_DIR", "INFRASIGHT_DEBUG"):
        monkeypatch.delenv(name, raising=False)
