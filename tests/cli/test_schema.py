"""`infrasight schema`."""

from __future__ import annotations

import pytest

from infrasight.cli.main import main
from infrasight.schema.original import original_ddl
from infrasight.schema.retention import Keep, Retention
from infrasight.schema.tables import TABLES, views, whole_ddl


def statements(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    assert main(["schema", *options]) == 0
    return capsys.readouterr().out.split(";\n\n")[:-1]


def test_the_tables_of_one_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert statements(capsys) == whole_ddl(Retention(30).all())
    assert len(statements(capsys)) == 1 + len(TABLES) + len(views()) + len(original_ddl())


def test_of_a_cluster_and_kept_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    found = statements(capsys, "--cluster", "mine", "--keep-days", "9", "--keep", "open=7,execve=0")
    assert found == whole_ddl(Retention.of(9, [Keep("open=7"), Keep("execve=0")]).all(), "mine")
    (local,) = (each for each in found if "`open_local` ON CLUSTER 'mine' (" in each)
    assert "ReplicatedMergeTree('/clickhouse/tables/{shard}/infrasight/open', '{replica}')" in local
    assert "TTL toDate(ts) + toIntervalDay(7)" in local
    assert sum("Distributed('mine', infrasight, `open_local`, cityHash64(node))" in each for each in found) == 1


@pytest.mark.parametrize("rule", ["open", "nope=1", "open=-1"])
def test_a_rule_that_is_none_is_one_line(capsys: pytest.CaptureFixture[str], rule: str) -> None:
    assert main(["schema", "--keep", rule]) == 2
    assert capsys.readouterr().err.startswith("infrasight: --keep: ")
