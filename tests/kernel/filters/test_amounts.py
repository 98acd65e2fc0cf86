"""How many of many events are told: repeats and rates. What is held back is counted."""

import ctypes
import errno
import os
import time
from itertools import pairwise
from pathlib import Path

import pytest

from infrasight.kernel.rules import Rate, Rules
from tests.kernel.filters.children import HOUR, SOMEBODY, child, chmods, follow, losses, opens, told, users
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
_libc = ctypes.CDLL(None, use_errno=True)
ALL_OF_THEM = 211


def test_repeats_are_counted(tap: Tap) -> None:
    """The first is told; told and counted are what was made."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), repeats_ns=HOUR))
    before = losses(tap)
    pid = child(chmods(ALL_OF_THEM), uid=SOMEBODY)
    found = told(tap, pid, "chmod")
    assert len(found) == 1
    assert losses(tap) - before == {("chmod", "repeated"): ALL_OF_THEM - 1}


def test_what_makes_two_events_the_same(tap: Tap, tmp_path: Path) -> None:
    """The process, what it did, with what arguments, and how it went."""
    follow(tap, chmod=Rules(allow=users(0, SOMEBODY), repeats_ns=HOUR))
    path, other = bytes(tmp_path / "file"), bytes(tmp_path / "other")
    before = losses(tap)

    def body() -> None:
        for _ in range(3):
            for each in (path, other, path + b"x"):
                for mode in (0o600, 0o640):
                    _libc.chmod(each, mode)
        os.mknod(path)
        for _ in range(3):
            _libc.chmod(path, 0o600)

    pid = child(body)
    found = [(each["path"], each["mode"], each["ret"]) for each in tap.records("chmod", pid=pid)]
    expected = [(each, mode, -errno.ENOENT) for each in (path, other, path + b"x") for mode in (0o600, 0o640)]
    assert found == [*expected, (path, 0o600, 0)]
    pids = [child(chmods(5, path), uid=SOMEBODY) for _ in range(2)]
    assert [len(told(tap, pid, "chmod", path)) for pid in pids] == [1, 1], "another process is another"
    assert (losses(tap) - before)["chmod", "repeated"] >= 12 + 2 + 8


def test_repeats_are_told_again_after_a_while(tap: Tap) -> None:
    """Two that are told are a window apart; none is missing from the sum."""
    window_ns, lasts_ns = 20_000_000, 300_000_000
    follow(tap, chmod=Rules(allow=users(SOMEBODY), repeats_ns=window_ns))
    before = losses(tap)
    reader, writer = os.pipe()

    def body() -> None:
        began_ns, made = time.monotonic_ns(), 0
        while made < 2 or time.monotonic_ns() < began_ns + lasts_ns:
            if made == 1:
                time.sleep(window_ns / 1e9)  # so that there is a second to tell, whenever others let us run
            chmods(1)()
            made += 1
        os.write(writer, b"%d %d" % (made, time.monotonic_ns() - began_ns))

    pid = child(body, uid=SOMEBODY)
    made, lasted_ns = map(int, os.read(reader, 99).split())
    os.close(reader)
    os.close(writer)
    ends = [each["enter_ns"] + each["latency_ns"] for each in told(tap, pid, "chmod")]
    gone = losses(tap) - before
    assert len(ends) + gone["chmod", "repeated"] + gone["chmod", "ring_full"] == made
    assert 2 <= len(ends) <= lasted_ns // window_ns + 1
    assert all(later - earlier > window_ns * 0.9 for earlier, later in pairwise(ends))


def test_a_burst_is_told_and_the_rest_counted(tap: Tap) -> None:
    """One a second, and 37 at once: of 211 in less than a second."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(1, 37)))
    before, start = losses(tap), time.monotonic()
    pid = child(chmods(ALL_OF_THEM), uid=SOMEBODY)
    more = int(time.monotonic() - start)
    count = len(told(tap, pid, "chmod"))
    assert 37 <= count <= 37 + more
    assert losses(tap) - before == {("chmod", "throttled"): ALL_OF_THEM - count}


@pytest.mark.needs("cgroup2")
def test_each_cgroup_has_its_own_share(tap: Tap, own_cgroup: Path) -> None:
    """And each probe. They are told apart in the counts of losses by probe."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(1, 11)), open=Rules(allow=users(SOMEBODY), rate=Rate(1, 7)))
    before, start = losses(tap), time.monotonic()

    def both() -> None:
        chmods(101)()
        opens(101)()

    # The share of our own cgroup may be used up by an earlier test.
    pids = child(both, uid=SOMEBODY), child(both, uid=SOMEBODY, cgroup=own_cgroup)
    more = int(time.monotonic() - start)
    counts = {probe: [len(told(tap, pid, probe)) for pid in pids] for probe in ("chmod", "open")}
    assert 11 <= counts["chmod"][1] <= 11 + more
    assert 7 <= counts["open"][1] <= 7 + more
    gone = losses(tap) - before
    assert (gone["chmod", "throttled"], gone["open", "throttled"] + sum(counts["open"])) == (202 - sum(counts["chmod"]), 202)


@pytest.mark.needs("cgroup2")
def test_the_rate_in_the_long_run(tap: Tap, own_cgroup: Path) -> None:
    per_second, burst, lasts_s = 500, 5, 0.5
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(per_second, burst)))
    before = losses(tap)
    reader, writer = os.pipe()

    def body() -> None:
        start, made, allowed, due = time.monotonic(), 0, 0, 0.0
        while (now := time.monotonic()) < start + lasts_s:
            chmods(1)()
            made += 1
            if due <= now + (burst - 1) / per_second:
                due, allowed = max(due, now) + 1 / per_second, allowed + 1
        os.write(writer, b"%d %d %f" % (made, allowed, now - start))

    pid = child(body, uid=SOMEBODY, cgroup=own_cgroup)
    made, allowed, lasted = os.read(reader, 99).split()
    os.close(reader)
    os.close(writer)
    count = len(told(tap, pid, "chmod"))
    gone = losses(tap) - before
    assert count + gone["chmod", "throttled"] + gone["chmod", "ring_full"] == int(made)
    assert count <= burst + per_second * float(lasted) + 1
    assert count >= 0.8 * int(allowed), "and not much less than is allowed, as often as it came to run"
