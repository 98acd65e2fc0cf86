"""One tracing for all tests of rules. Each begins with nothing traced but process life."""

from collections.abc import Iterator

import pytest

from tests.kernel.tap import Tap, tapping


@pytest.fixture(scope="package")
def tracing() -> Iterator[Tap]:
    with tapping(()) as tap:
        yield tap


@pytest.fixture
def tap(tracing: Tap) -> Iterator[Tap]:
    yield tracing
    tracing.tracing.apply(())
