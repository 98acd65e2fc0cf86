"""What the measures are made of: the project that is built, the names and times of BPF programs; no tracer is started here."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.bench import bpf, processes, project
from tests.bench.bpf import Times, _symbols, _times, merged
from tests.bench.probe_time import LOADS, Small, _between
from tests.bench.tracers import EXECS_AND_OPENS, NOWHERE, STRACE, SYSCALL_COUNTS, Peer, Running, TracerFailed

TAG = bytes.fromhex("0123456789abcdef")
KALLSYMS = """ffffffff8000000 T bpf_prog_load
ffffffffc000000 t bpf_prog_0123456789abcdef_exit__open__openat2\t[bpf]
ffffffffc000100 t bpf_prog_fedcba9876543210_exit__open__openat\t[bpf]
"""


def test_the_project_is_the_same_every_time_and_no_two_files_are() -> None:
    texts = [project.source(unit) for unit in range(project.UNITS)]
    assert texts == [project.source(unit) for unit in range(project.UNITS)]
    assert len(set(texts)) == project.UNITS
    assert all("$" not in text and 500 < len(text.splitlines()) < 2000 for text in texts)


@pytest.mark.needs("gcc")
def test_the_project_builds_runs_and_builds_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(project, "UNITS", 2)
    monkeypatch.setenv("MAKEFLAGS", "n")  # of a make that we run under: only say what would be done
    project.write(tmp_path)
    assert project.build(tmp_path) > 0
    first = (tmp_path / "unit01.o").stat().st_mtime_ns
    said = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True).stdout
    assert int(said) > 0
    assert project.build(tmp_path) > 0
    assert (tmp_path / "unit01.o").stat().st_mtime_ns > first
    assert "warning" not in capfd.readouterr().err


def info(name: bytes, runs: int, ns: int) -> bytes:
    """struct bpf_prog_info as the kernel fills it, of what is read."""
    text = bytearray(bpf.INFO_BYTES)
    text[bpf.TAG], text[bpf.NAME] = TAG, name[:15].ljust(16, b"\0")
    text[bpf.RUNS], text[bpf.RUN_NS] = runs.to_bytes(8, "little"), ns.to_bytes(8, "little")
    return bytes(text)


def test_a_name_that_was_cut_is_made_whole_by_its_symbol() -> None:
    symbols = _symbols(KALLSYMS)
    assert _times(info(b"exit__open__openat2", 4, 1000), symbols) == Times("exit__open__openat2", 4, 1000)
    assert _times(info(b"exit__open__openat2", 4, 1000), {}).name == "exit__open__ope"
    assert _times(info(b"another", 4, 1000), symbols).name == "another"


def test_two_wholes_of_one_cut_name_are_not_guessed_between() -> None:
    symbols = {TAG.hex(): {"exit__open__openat", "exit__open__openat2"}}
    assert _times(info(b"exit__open__openat2", 1, 1), symbols).name == "exit__open__ope"


def test_programs_of_one_name_are_one() -> None:
    assert merged([Times("a", 1, 100), Times("b", 5, 50), Times("a", 3, 100)]) == [Times("a", 4, 200), Times("b", 5, 50)]
    assert merged([Times("a", 1, 100), Times("a", 3, 100)])[0].ns_per_run == 50


def test_what_programs_did_between_two_looks() -> None:
    before = {1: Times("a", 10, 100), 2: Times("gone", 1, 1)}
    after = {1: Times("a", 12, 150), 3: Times("new", 7, 7)}
    assert _between(before, after) == [Times("a", 2, 50)]


@pytest.mark.kernel
@pytest.mark.needs("root", "bpf")
def test_counting_ends_with_its_block() -> None:
    switched = Path("/proc/sys/kernel/bpf_stats_enabled").read_text()
    with bpf.counting():
        assert all(times.runs >= 0 for times in bpf.programs().values())
    assert Path("/proc/sys/kernel/bpf_stats_enabled").read_text() == switched


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.event)
def test_every_small_load_says_how_many_it_made(load: Small, tmp_path: Path) -> None:
    assert load.run(tmp_path) > 0


def test_the_peers_of_whole_workloads() -> None:
    assert SYSCALL_COUNTS.command(NOWHERE)[-1] == "tracepoint:raw_syscalls:sys_enter { @[pid, args->id] = count(); }"
    assert EXECS_AND_OPENS.name == "execsnoop + opensnoop"
    assert str(os.getpid()) in STRACE.command(NOWHERE)


class Mayfly(Peer):
    def is_ready(self, running: Running) -> bool:
        return True


def test_what_a_tracer_costs_that_ended_is_not_believed() -> None:
    tracer = Mayfly("mayfly", "coreutils", "sleep", "0.1")
    with pytest.raises(TracerFailed, match="mayfly: ended by itself"), tracer.attach() as running:
        assert processes.wait_until(lambda: not running.alive(), 10)
