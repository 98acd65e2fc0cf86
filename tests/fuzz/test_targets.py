"""What is fuzzed can be fuzzed: each target takes its seeds, and bytes that are nothing."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "gate"])  # which opens an engine of its own
def test_a_target_takes_its_seeds(name: str) -> None:
    target = TARGETS[name]()
    for data in (b"", b"\0", b"\xff" * 9, b"1", *SEEDS[name]()):
        target(data)


def test_each_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
