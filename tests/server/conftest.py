from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.server.running import MemoryStore, Running


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    """A server on a loopback port, with a store in memory."""
    async with Running(MemoryStore()) as server:
        yield server
