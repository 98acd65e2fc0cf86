"""The workloads do what they say: checked against their own logs and against sums that must hold."""

import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import workloads


@pytest.mark.parametrize("name", workloads.NAMES)
def test_every_workload_builds_without_a_warning(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert workloads.build(name).name == name
    assert "warning" not in capfd.readouterr().err


def test_building_at_once_gives_one_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ThreadPoolExecutor(4) as pool:
        built = set(pool.map(workloads.build.__wrapped__, ["pingpong"] * 4))
    assert len(built) == 1
    assert [entry.name for entry in built.pop().parent.iterdir()] == ["pingpong"]


def test_a_bad_option_is_refused() -> None:
    with pytest.raises(workloads.WorkloadFailed, match="exit 2: usage: opens"):
        workloads.run("opens", "--count", 5)


def test_opens_are_counted_by_call_and_result(tmp_path: Path) -> None:
    mix = ("--mix", "openat:3,open:1,openat2:1,creat:1")
    said = workloads.run("opens", "--dir", tmp_path, "--count", 1009, "--enoent", 101, "--distinct", 7, *mix)
    by_call = Counter(said["ok"]) + Counter(said["enoent"])
    assert sum(said["enoent"].values()) == 101
    assert (sum(by_call.values()), said["opens"], said["other_errors"]) == (1009, 1009, 0)
    assert by_call == {"openat": 505, "open": 168, "openat2": 168, "creat": 168}
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.serial  # it would fill the rings of others too
def test_absent_opens_all_fail(tmp_path: Path) -> None:
    said = workloads.run("opens", "--dir", tmp_path, "--seconds", 0.05, "--absent")
    assert said["opens"] == said["enoent"]["openat"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_rate_is_kept(tmp_path: Path) -> None:
    said = workloads.run("opens", "--dir", tmp_path, "--count", 500, "--rate", 5000)
    assert said["elapsed_ns"] >= 0.095e9


def test_execs_log_what_each_was_given(tmp_path: Path) -> None:
    said = workloads.run("execs", "--dir", tmp_path, "--count", 101, "--log", tmp_path / "log")
    log = workloads.read_log(tmp_path / "log")
    assert Counter(line["ret"] for line in log) == {0: said["ok"], -2: said["enoent"], -13: said["eacces"], -8: said["enoexec"]}
    assert Counter(line["kind"] for line in log) == said["kinds"]
    assert [line["argv"][2] for line in log] == [f"--n={k}" for k in range(101)]
    assert max(sum(map(len, line["argv"])) for line in log) > 4096
    assert any("" in line["argv"] for line in log)
    assert len({line["pid"] for line in log}) == 101


def test_connects_of_every_kind(tmp_path: Path) -> None:
    said = workloads.run("connects", "--dir", tmp_path, "--count", 211, "--log", tmp_path / "log")
    log = workloads.read_log(tmp_path / "log")
    assert Counter(line["kind"] for line in log) == said["kinds"]
    assert sum(said["kinds"].values()) == said["connects"] == 211
    assert {line["kind"]: line["ret"] for line in log if line["ret"]} == {
        "tcp4_refused": -111,
        "tcp4_nonblock": -115,
        "tcp6_refused": -111,
        "unix_enoent": -2,
    }
    assert {line["address"] for line in log if line["family"] != "unix"} == {"127.0.0.1", "::1"}


@pytest.mark.parametrize("then", [[], ["--exec"]])
def test_threads_open_each_their_own_file(tmp_path: Path, then: list[str]) -> None:
    said = workloads.run("threads", "--dir", tmp_path, "--threads", 5, "--opens", 11, "--early", 2, *then)
    assert [thread["opens"] for thread in said["threads"]] == [5, 5, 11, 11, 11]
    assert said["opens"] == 43
    assert len({thread["tid"] for thread in said["threads"]} | {said["pid"]}) == 6
    assert (said["exec_tid"] is not None) == bool(then)


def test_forkstorm_logs_every_process_with_its_parent(tmp_path: Path) -> None:
    said = workloads.run("forkstorm", "--count", 101, "--batch", 7, "--depth", 4, "--touch", tmp_path, "--log", tmp_path / "log")
    log = workloads.read_log(tmp_path / "log")
    assert Counter(line["depth"] for line in log) == {1: 26, 2: 25, 3: 25, 4: 25}
    assert (said["processes"], said["chains"]) == (101, 26)
    depth_of = {line["pid"]: line["depth"] for line in log} | {said["pid"]: 0}
    assert all(depth_of[line["ppid"]] == line["depth"] - 1 for line in log)


def test_pingpong_rounds() -> None:
    assert workloads.run("pingpong", "--count", 101)["rounds"] == 101
