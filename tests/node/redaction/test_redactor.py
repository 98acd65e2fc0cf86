"""Columns without secrets: the same values, each where it was, but for what is masked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.actors import Mailbox
from infrasight.kernel import Records
from infrasight.node.columns import encode, words
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Drain
from infrasight.node.graph import build
from infrasight.node.measures import samples
from infrasight.node.redaction.command_line import masked
from infrasight.node.redaction.redactor import NAMES, Redaction, Redactor, check, check_kept
from infrasight.node.settings import Settings
from infrasight.schema import KINDS, Type
from tests.node.records import layout_of, make

Lines = list[list[bytes]]


@pytest.fixture(autouse=True, scope="module", params=[-1, 1 << 30], ids=["as many", "as few"])
def small(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways that hints are looked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infrasight.node.redaction.redactor.SMALL", request.param)
        yield


def redactor(*patterns: str, keep: tuple[str, ...] = (), enabled: bool = True) -> Redactor:
    made = Redactor()
    made.follow(Redaction(enabled, tuple(map(check, patterns)), tuple(map(check_kept, keep))))
    return made


def execs(lines: Lines, cut: list[int] | None = None) -> Records:
    argv = [b"".join(word + b"\0" for word in line) for line in lines]
    name = "execve_long" if max(map(len, argv), default=0) > 256 else "execve"
    return make(name, len(lines), argv=argv, argv_truncated=cut or [0] * len(lines), path=b"/bin/x", path_place=b"", path_whole=0, comm=b"x")


def told(lines: Lines, by: Redactor, cut: list[int] | None = None) -> tuple[Lines, list[int]]:
    """Arguments and whether they were redacted, as they leave the enricher."""
    enricher = Enricher(Mailbox("in", limit=1), Mailbox("out", limit=1), node="n", boot="")
    enricher.redactor = by
    (batch,) = enricher.batches(Drain([], [(layout_of("execve"), execs(lines, cut))], [], [], 0))
    batch.columns.validate(full=True)
    return batch.columns["argv"].to_pylist(), batch.columns["redacted"].to_pylist()


def masks(by: Redactor) -> dict[str, int]:
    return {name: count for name, count in by.counts.items() if count}


def test_what_leaves_the_enricher() -> None:
    by = redactor()
    lines = [[b"ls", b"-l"], [b"mysql", b"-phunter2"], [], [b"x", b"--token", b"hunter2", b""], [b"mysql", b"-phunter2"], [b""]]
    expected = [[b"ls", b"-l"], [b"mysql", b"-p***"], [], [b"x", b"--token", b"***", b""], [b"mysql", b"-p***"], [b""]]
    assert told(lines, by) == (expected, [0, 1, 0, 1, 1, 0])
    assert masks(by) == {"program": 2, "option": 1}


def test_nothing_is_done_to_what_has_no_hint() -> None:
    argv = words([[b"ls", b"-l"], [b"make", b"-j2"]])
    columns = {"argv": argv, "argv_truncated": pa.array([0, 0], pa.uint8()), "redacted": pa.array([0, 0], pa.uint8())}
    columns |= {column.name: encode([b"", b""]) for column in KINDS["execve"].columns if column.type in (Type.TEXT, Type.NAME)}
    assert redactor().redacted("execve", columns)["argv"] is argv


def test_the_end_of_a_line_that_was_cut_off() -> None:
    lines = [[b"psql", b"postgres://bob:hunt"], [b"psql", b"postgres://bob:hunt"]]
    assert told(lines, redactor(), [1, 0]) == ([[b"psql", b"postgres://bob:***"], lines[1]], [1, 0])


def test_the_same_line_is_masked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, ...]] = []

    def counted(line: tuple[bytes, ...], counts: Counter[str], **options: object) -> list[bytes]:
        asked.append(line)
        return masked(line, counts, **options)  # type: ignore[arg-type]  # handed on as it came

    monkeypatch.setattr("infrasight.node.redaction.redactor.masked", counted)
    by = redactor()
    found, _ = told([[b"x", b"--token=%d" % (row % 3)] for row in range(300)], by)
    assert found == [[b"x", b"--token=***"]] * 300
    assert sorted(asked) == [(b"x", b"--token=%d" % number) for number in range(3)]
    assert masks(by) == {"assignment": 300}


WORD = st.one_of(
    st.sampled_from([b"mysql", b"-phunter2", b"--token", b"a=b", b"https://a:b@c", b"", b"ls", b"TOKEN=x", b"sh", b"-c", b"x"]),
    st.binary(max_size=9).map(lambda word: word.replace(b"\0", b"")),
)


@given(st.lists(st.lists(WORD, max_size=6), min_size=1, max_size=12), st.data())
def test_rows_are_masked_as_each_alone(lines: Lines, data: st.DataObject) -> None:
    cut = [data.draw(st.integers(0, 1)) for _ in lines]
    expected = [masked(line, Counter(), cut=bool(end)) for line, end in zip(lines, cut, strict=True)]
    changed = [int(after != line) for after, line in zip(expected, lines, strict=True)]
    assert told(lines, redactor(), cut) == (expected, changed)


def test_the_operators_own_patterns() -> None:
    by = redactor("corp-[0-9]{4}", "ticket=(?P<secret>[^;]+)", "(?i)^voucher:(?P<secret>.*)$")
    lines = [[b"x", b"corp-1234/corp-9999", b"a;ticket=abc;b"], [b"VOUCHER:\xff1", b"a VOUCHER:2"], [b"ls", b"corp-12"]]
    expected = [[b"x", b"***/***", b"a;ticket=***;b"], [b"VOUCHER:***", b"a VOUCHER:2"], lines[2]]
    assert told(lines, by) == (expected, [1, 1, 0])
    assert masks(by) == {"patterns[0]": 2, "patterns[1]": 1, "patterns[2]": 1}


def test_ours_are_followed_after_the_operators_own() -> None:
    assert told([[b"x", b"--token", b"corp-1"], [b"corp-1", b"TOKEN=corp-1"]], redactor("corp-[0-9]")) == (
        [[b"x", b"--token", b"***"], [b"***", b"TOKEN=***"]],
        [1, 1],
    )


def test_a_pattern_that_finds_something_everywhere_ends() -> None:
    (line,), _ = told([[b"x" * 200, b"y"]], redactor("x"))
    assert set(line[0]) == {ord("*")}
    assert line[1] == b"y"


def test_what_is_kept() -> None:
    by = redactor("corp-[0-9]+", keep=("--token=public-.*", "corp-0|dummy"))
    lines = [[b"x", b"--token=public-1", b"--token=hunter2", b"corp-0", b"corp-00"], [b"x", b"--password", b"dummy", b"--secret", b"dummy2"]]
    expected = [[b"x", b"--token=public-1", b"--token=***", b"corp-0", b"***"], [b"x", b"--password", b"dummy", b"--secret", b"***"]]
    assert told(lines, by) == (expected, [1, 1])


def test_switched_off_and_on_again() -> None:
    by = redactor(enabled=False)
    line = [b"x", b"--token", b"hunter2"]
    assert told([line], by) == ([line], [0])
    by.follow(Redaction())
    assert told([line], by) == ([[b"x", b"--token", b"***"]], [1])


@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        ("(a", "missing ): (?P<secret>(a)"),
        ("(a)b", "a group is to be (?:...), or (?P<secret>...) for what is masked"),
        ("(?P<x>a)(?P<secret>b)", "only one group has a name, (?P<secret>...)"),
        ("(?<=a)b", "invalid perl operator: (?<="),
        ("a*", "it matches nothing at all, and so everywhere"),
        ("a{1000}{1000}", "bad repetition operator: {1000}{1000}"),
    ],
)
def test_patterns_that_cannot_be_followed(pattern: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        check(pattern)
    assert str(refused.value) == wrong
    assert "\n" not in str(refused.value)


def text(kind: str, rows: int, **columns: list[bytes]) -> dict[str, list[bytes]]:
    """The columns given of a kind, as they come out; the others are empty."""
    empty = {column.name: encode([b""] * rows) for column in KINDS[kind].columns if column.type in (Type.TEXT, Type.NAME)}
    found = redactor().redacted(kind, empty | {name: encode(values) for name, values in columns.items()})
    return {name: found[name].to_pylist() for name in columns}


def test_paths_where_a_url_can_be() -> None:
    """Whatever else is in paths stays: files are called token, and password."""
    paths = [b"/etc/passwd", b"/x/token=1", b"https://a:b@c/d", b"/w/https:/a:b@c/d", b"/x/y?token=z", b"http://h/?token=z", b"/x:/y"]
    expected = [*paths[:2], b"https://a:***@c/d", b"/w/https:/a:***@c/d", paths[4], b"http://h/?token=***", paths[6]]
    assert text("open", 7, path=paths, path_resolved=paths, cwd=paths) == {"path": expected, "path_resolved": expected, "cwd": expected}
    assert text("symlink", 7, target=paths)["target"] == expected


def test_settings_of_file_systems() -> None:
    given = {"key": [b"source", b"password", b"pass", b"passwd", b"secret", b"password"], "value": [b"//h/s", b"a", b"b", b"c", b"d", b""]}
    assert text("mount", 6, **given) == {"key": given["key"], "value": [b"//h/s", b"***", b"***", b"***", b"***", b""]}


def test_parameters_of_modules() -> None:
    assert text("module", 2, parameters=[b"a=1 wpa_passphrase=x b=2", b"debug=1"])["parameters"] == [b"a=1 wpa_passphrase=*** b=2", b"debug=1"]


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.origin == "kernel" and not kind.account and name != "process"])
def test_every_kind_comes_through(kind: str) -> None:
    """Whatever lies in the records."""
    records = make(kind, 50)
    for slot in layout_of(kind).kind.slots:
        records[slot.name][records[slot.name] == 0] = 1
    enricher = Enricher(Mailbox("in", limit=1), Mailbox("out", limit=1), node="n", boot="")
    (batch,) = enricher.batches(Drain([], [(layout_of(kind), records)], [], [], 0))
    assert batch.columns.num_rows == 50


def test_every_rule_is_counted_from_the_start() -> None:
    assert set(Redactor().counts) == set(NAMES)


LINES_IN_A_NEW_PROCESS = """
import sys
from tests.node.redaction.test_redactor import redactor, told
assert told([[b"x", b"--token=%d" % row, b"corp"] for row in range(200)], redactor("corp", keep=("a",)))[1] == [1] * 200
assert "pandas" not in sys.modules
"""


def test_what_was_masked_is_in_the_metrics() -> None:
    node = build(None, Settings(output="none"))  # type: ignore[arg-type]  # wiring touches no tracing
    told([[b"x", b"--token", b"a"], [b"y", b"corp-1"]], node.enricher.redactor)
    node.enricher.redactor.follow(Redaction(patterns=(check("corp-[0-9]"),)))
    told([[b"y", b"corp-1", b"corp-2"]], node.enricher.redactor)
    found = {each.labels["pattern"]: each.value for each in samples(node, {}) if each.name == "infrasight_redacted_total"}
    assert (found["option"], found["patterns[0]"], found["github"]) == (1, 2, 0)


def test_pandas_is_not_asked_for() -> None:
    """It is large, and Arrow asks for it where it is installed."""
    subprocess.run([sys.executable, "-c", LINES_IN_A_NEW_PROCESS], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, check=True)


def test_every_rule_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[3] / "docs/REDACTION.md").read_text()
    assert [name for name in NAMES if f"`{name}`" not in page] == []


def test_numbers_of_a_large_batch() -> None:
    """Places of words are those of the whole batch."""
    lines = [[b"x"] * (row % 5) + ([b"--token=y"] if row % 7 == 0 else []) for row in range(3000)]
    found, changed = told(lines, redactor())
    expected = [[b"x"] * (row % 5) + ([b"--token=***"] if row % 7 == 0 else []) for row in range(3000)]
    assert found == expected
    assert np.flatnonzero(changed).tolist() == list(range(0, 3000, 7))
