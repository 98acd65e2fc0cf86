"""The harness's own arithmetic and reading; no tracer is started here."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from tests.bench import processes
from tests.bench.figures import Figure, Figures, Goal, plain
from tests.bench.infrasight import counts_of, rows_of
from tests.bench.search import highest
from tests.bench.tracers import Counts, _lost


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.4567, "0.457"), (1.234, "1.23"), (12.34, "12.3"), (123.4, "123"), (1234.5, "1,234"), (-1234567, "-1,234,567")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert plain(value) == text


def test_a_row_is_least_median_greatest() -> None:
    figure = Figure("cost", "ours", "ns", values=[30, 10, 20, 1000])
    assert figure.cells() == ("cost", "ours", "10.0", "25.0", "1,000", "ns", "")


@pytest.mark.parametrize(
    ("goal", "reached"),
    [(Goal(at_most=20), True), (Goal(at_most=19), False), (Goal(at_least=20), True), (Goal(at_least=21), False)],
)
def test_a_goal_is_of_the_median(goal: Goal, reached: bool) -> None:
    figure = Figure("cost", "ours", "ns", goal, [1, 20, 100])
    assert figure.as_dict()["reached"] is reached
    assert figure.verdict() == f"{goal} {'reached' if reached else 'MISSED'}"


def test_figures_of_one_name_stand_together_in_the_order_they_came() -> None:
    figures = Figures()
    for name, subject in (("cost", "ours"), ("memory", "ours"), ("cost", "theirs"), ("memory", "theirs"), ("cost", "ours")):
        figures.add(name, subject, 1, "ns")
    assert [(figure.name, figure.subject) for figure in figures.all()] == [
        ("cost", "ours"),
        ("cost", "theirs"),
        ("memory", "ours"),
        ("memory", "theirs"),
    ]
    assert figures.as_dict()["figures"][0]["values"] == [1, 1]


def test_the_table_is_aligned_and_a_note_is_there_once() -> None:
    figures = Figures()
    figures.add("a", "ours", 1, "ns")
    figures.add("longer", "theirs", 12345, "ns", Goal(at_most=5))
    figures.note("no perf")
    figures.note("no perf")
    assert figures.table().splitlines() == [
        "figure  of         min  median     max  unit  goal",
        "a       ours      1.00    1.00    1.00  ns",
        "longer  theirs  12,345  12,345  12,345  ns    <= 5.00 MISSED",
        "note: no perf",
    ]


def test_the_last_value_is_of_this_round() -> None:
    figures = Figures()
    assert figures.last("cost", "ours") is None
    figures.add("cost", "ours", 1, "ns")
    figures.add("cost", "ours", 2, "ns")
    assert figures.last("cost", "ours") == 2


@dataclass
class Held:
    rate: float


@pytest.mark.parametrize("limit", [20, 99, 100, 340, 1000])
def test_the_search_comes_close_to_the_limit_in_few_tries(limit: int) -> None:
    tried: list[int] = []

    def try_rate(rate: int) -> Held | None:
        tried.append(rate)
        return Held(rate) if rate <= limit else None

    best = highest(try_rate, start=100, factor=1.5, refinements=2, tries=12)
    assert best is not None
    assert limit / 1.15 <= best.rate <= limit
    assert best.rate == max(rate for rate in tried if rate <= limit)


def test_the_search_ends_when_nothing_is_held_and_when_all_is() -> None:
    tried: list[int] = []
    assert highest(lambda rate: tried.append(rate), start=100, tries=5) is None
    assert len(tried) == 5
    best = highest(Held, start=100, factor=2, tries=4)
    assert best is not None
    assert best.rate == 800


def test_losses_are_summed_as_each_peer_words_them() -> None:
    said = b"Attaching 4 probes...\nLost 12 events on CPU #0!\nLost 30 events\nLOST 1 events!\nlosing nothing\n"
    assert _lost(said) == 43


def test_the_metrics_of_one_probe_and_of_all() -> None:
    page = """# TYPE infrasight_probe_events_total counter
infrasight_probe_events_total{probe="open"} 1009.0
infrasight_probe_events_total{probe="execve"} 5.0
# TYPE infrasight_probe_lost_total counter
infrasight_probe_lost_total{probe="open",reason="ring_full"} 3.0
infrasight_probe_lost_total{probe="open",reason="map_full"} 4.0
infrasight_probe_lost_total{probe="execve",reason="ring_full"} 100.0
"""
    assert counts_of("open", page) == Counts(seen=1009, lost=7)
    assert counts_of(None, page) == Counts(seen=1014, lost=107)


@pytest.mark.parametrize("answer", ['[{"rows": 1}, {"rows": 2}]\n', '{"rows": 1}\n{"rows": 2}\n'])
def test_an_answer_is_a_list_or_lines(answer: str) -> None:
    assert rows_of(answer) == [{"rows": 1}, {"rows": 2}]


def test_the_cost_of_a_family_counts_its_children_living_and_dead() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    script = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('done', flush=True)\nsys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"done\n"
        assert child.pid in processes.family(os.getpid())
        assert processes.cpu_s(child.pid) >= 0.25
        assert processes.memory(child.pid).peak_mib >= processes.memory(child.pid).rss_mib > 1
    finally:
        processes.stop(child)
    assert child.returncode is not None
    assert processes.cpu_s(child.pid) == 0
