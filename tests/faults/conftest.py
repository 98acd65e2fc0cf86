from __future__ import annotations

import pytest

from tests.faults.world import FULL, QUICK, Load


@pytest.fixture(params=[pytest.param(QUICK, id="quick"), pytest.param(FULL, id="full", marks=[pytest.mark.soak, pytest.mark.timeout(1800)])])
def load(request: pytest.FixtureRequest) -> Load:
    """Each fault quick, and at full length."""
    given: Load = request.param
    return given
