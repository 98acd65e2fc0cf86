"""What the project promises of inserts into a server: half a million rows a second and core, three times plain asynch."""

from __future__ import annotations

import pytest

from tests.store.clickhouse import ClickHouse
from tests.store.measure_server import ours, plain_asynch


@pytest.mark.needs("clickhouse")
@pytest.mark.serial
@pytest.mark.bench
def test_columns_cost_little(clickhouse: ClickHouse) -> None:
    cpu, _ = ours(clickhouse)
    plain, _ = plain_asynch(clickhouse)
    assert 1e6 / cpu >= 500_000
    assert plain / cpu >= 3
