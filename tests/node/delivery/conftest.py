import os

import pytest


@pytest.fixture(autouse=True)
def no_crash_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """So what is synced makes no difference, but takes long where much runs at a time."""
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(os, name, lambda fd: None)
