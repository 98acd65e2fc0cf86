"""What a test needs of the machine has a name in tests/conftest.py, as CONTRIBUTING.md says, so that a run can list what it lacked."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FILES = sorted(path for path in TESTS.rglob("*.py") if path not in (TESTS / "conftest.py", Path(__file__)))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(TESTS)) for path in FILES])
def test_no_skip_has_a_reason_of_its_own(path: Path) -> None:
    assert re.findall(r"pytest\.skip|mark\.skip|importorskip", path.read_text()) == []
