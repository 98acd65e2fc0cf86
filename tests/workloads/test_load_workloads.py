"""The workloads that the benchmarks put on the machine: they do what they count, and end when they cannot."""

from pathlib import Path

import pytest

from tests import workloads


@pytest.mark.parametrize("call", ["getppid", "chmod", "kill", "ptrace", "mount", "umount"])
def test_calls_are_counted(call: str) -> None:
    said = workloads.run("calls", "--call", call, "--count", 1009)
    assert (said["call"], said["calls"]) == (call, 1009)


def test_calls_end_with_their_time() -> None:
    said = workloads.run("calls", "--call", "getppid", "--seconds", 0.1)
    assert said["calls"] > 1000
    assert said["elapsed_ns"] >= 0.1e9


def test_a_call_that_nobody_knows_is_refused() -> None:
    with pytest.raises(workloads.WorkloadFailed, match="exit 2: usage: calls"):
        workloads.run("calls", "--call", "reboot", "--count", 1)


def test_preads_leave_no_file(tmp_path: Path) -> None:
    said = workloads.run("preads", "--count", 1009, "--dir", tmp_path, "--mib", 2)
    assert (said["reads"], said["bytes"]) == (1009, 1009 * 4096)
    assert not list(tmp_path.iterdir())


def test_http_requests_share_connections(tmp_path: Path) -> None:
    # Three clients with 34, 34 and 33 requests, ten on a connection: four connections each.
    said = workloads.run("http", "--count", 101, "--clients", 3, "--keep", 10, "--dir", tmp_path)
    assert (said["requests"], said["connections"]) == (101, 12)
