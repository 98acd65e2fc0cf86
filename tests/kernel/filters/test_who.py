"""Whose calls the kernel passes on under rules, and of which outcome: each is made by a child of known user, name and cgroup, and counted."""

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

from infrasight.kernel.rules import Match, Outcome, Rate, Rules
from infrasight.schema import PROBES
from infrasight.schema.events.process import EXEC, EXIT, FORK
from infrasight.schema.kinds import KINDS
from tests.kernel.calls import cgroup_id
from tests.kernel.filters.children import HOUR, SOMEBODY, child, chmods, connects, follow, losses, openat, opens, told, users
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
_libc = ctypes.CDLL(None, use_errno=True)


def test_users(tap: Tap) -> None:
    """The real one. Deny wins."""
    for rules, expected in (
        (Rules(), (7, 5)),
        (Rules(allow=users(SOMEBODY, 99)), (7, 0)),
        (Rules(deny=users(SOMEBODY, 99)), (0, 5)),
        (Rules(allow=users(SOMEBODY, 0), deny=users(0)), (7, 0)),
        (Rules(allow=users(SOMEBODY), deny=users(SOMEBODY)), (0, 0)),
        (Rules(allow=users()), (0, 0)),
        (Rules(deny=users()), (7, 5)),
    ):
        follow(tap, open=rules)
        pids = child(opens(7), uid=SOMEBODY), child(opens(5))
        assert tuple(len(told(tap, pid)) for pid in pids) == expected, rules


def test_the_real_user_counts(tap: Tap) -> None:
    follow(tap, open=Rules(deny=users(SOMEBODY)))

    def pretend() -> None:
        os.seteuid(SOMEBODY)
        opens(3)()

    assert len(told(tap, child(pretend))) == 3


def test_names(tap: Tap) -> None:
    """Exactly, all 15 bytes; of the thread, as it is called when the call ends."""
    full, longer = b"fifteen bytes!!", b"fifteen bytes!!!"
    names = [b"abc", b"ab", b"abcd", b"ABC", full, longer, b"\xff\n"]
    follow(tap, open=Rules(allow=Match(comms=frozenset({b"abc", full, b"\xff\n"}))))
    assert [len(told(tap, child(opens(3), comm=name))) for name in names] == [3, 0, 0, 0, 3, 3, 3]
    follow(tap, open=Rules(deny=Match(comms=frozenset({b"abc", full, b"\xff\n"}))))
    assert [len(told(tap, child(opens(3), comm=name))) for name in names] == [0, 3, 3, 3, 0, 0, 0]


@pytest.mark.needs("cgroup2")
def test_cgroups(tap: Tap, own_cgroup: Path) -> None:
    """This very one, and not one inside it."""
    inside = own_cgroup / "inside"
    inside.mkdir()
    try:
        mine, one = cgroup_id(), own_cgroup.stat().st_ino
        for rules, expected in (
            (Rules(allow=Match(cgroups=frozenset({one}))), [0, 3, 0]),
            (Rules(deny=Match(cgroups=frozenset({one}))), [3, 0, 3]),
            (Rules(allow=Match(cgroups=frozenset({one, mine}))), [3, 3, 0]),
        ):
            follow(tap, open=rules)
            assert [len(told(tap, child(opens(3), cgroup=place))) for place in (None, own_cgroup, inside)] == expected
    finally:
        inside.rmdir()


def test_lists_of_several_kinds_must_all_agree(tap: Tap) -> None:
    follow(tap, open=Rules(allow=Match(uids=frozenset({SOMEBODY}), comms=frozenset({b"abc"})), deny=Match(comms=frozenset({b"no"}))))
    who = [(SOMEBODY, b"abc"), (SOMEBODY, b"other"), (0, b"abc"), (SOMEBODY, b"no")]
    assert [len(told(tap, child(opens(3), uid=uid, comm=comm))) for uid, comm in who] == [3, 0, 0, 0]


def test_outcome(tap: Tap, tmp_path: Path) -> None:
    """A call that succeeds and one that fails, of which one is told."""
    (tmp_path / "file").touch()
    there, absent = bytes(tmp_path / "file"), bytes(tmp_path / "absent")

    def both() -> None:
        for _ in range(5):
            openat(there)
            openat(absent)

    for outcome, expected in ((Outcome.BOTH, (5, 5)), (Outcome.FAILED, (0, 5)), (Outcome.SUCCEEDED, (5, 0))):
        follow(tap, open=Rules(outcome=outcome))
        pid = child(both)
        assert (len(told(tap, pid, path=there)), len(told(tap, pid, path=absent))) == expected


def test_rules_are_for_one_probe(tap: Tap) -> None:
    follow(tap, open=Rules(deny=users(SOMEBODY)), chmod=Rules(allow=users(SOMEBODY)), ptrace=Rules())

    def all_three() -> None:
        opens(3)()
        chmods(5)()
        _libc.ptrace(16, 2**22 + 5, 0, 0)

    pid, other = child(all_three, uid=SOMEBODY), child(all_three)
    assert [len(tap.records(probe, pid=pid)) for probe in ("chmod", "ptrace")] == [5, 1]
    assert [len(tap.records(probe, pid=other)) for probe in ("chmod", "ptrace")] == [0, 1]
    assert (len(told(tap, pid)), len(told(tap, other))) == (0, 3)


def test_process_life_is_never_filtered(tap: Tap) -> None:
    """Even if somebody wrote rules for it."""
    strict = Rules(allow=users(SOMEBODY), deny=users(0), outcome=Outcome.FAILED, repeats_ns=HOUR, rate=Rate(1, 1))
    tap.tracing.apply((), {"process": strict, "execve": strict})
    before = losses(tap)
    pids = [subprocess.Popen(["/bin/true"]) for _ in range(7)]
    assert [each.wait() for each in pids] == [0] * 7
    assert [[each["action"] for each in tap.records("process", pid=process.pid)] for process in pids] == [[FORK, EXEC, EXIT]] * 7
    assert tap.records("execve", pid={process.pid for process in pids}) == []
    assert {key for key in losses(tap) - before if key[0] == "process"} == set()


def test_execs_by_outcome_and_name(tap: Tap) -> None:
    """The name is that of the new program."""
    follow(tap, execve=Rules(deny=Match(comms=frozenset({b"true"}))))
    true = subprocess.Popen(["/bin/true"])
    echo = subprocess.Popen(["/bin/echo"], stdout=subprocess.DEVNULL)
    assert (true.wait(), echo.wait()) == (0, 0)
    assert (len(tap.records("execve", pid=true.pid)), len(tap.records("execve", pid=echo.pid))) == (0, 1)
    follow(tap, execve=Rules(outcome=Outcome.FAILED))

    def fail() -> None:
        for _ in range(3):
            _libc.execv(b"/nonexistent/program", None)

    pid = child(fail)
    true = subprocess.Popen(["/bin/true"])
    true.wait()
    assert (len(tap.records("execve", pid=pid)), tap.records("execve", pid=true.pid)) == (3, [])


def test_every_probe_follows_rules_on_who(tap: Tap) -> None:
    """Denied to everybody, nothing is told of any, whatever happens on the machine meanwhile; process life excepted."""
    nobody = Rules(allow=users(2**32 - 2))
    follow(tap, **{probe: nobody for probe in PROBES if probe != "process" and not getattr(KINDS[probe], "account", False)})

    def body() -> None:
        opens(3)()
        chmods(3)()
        connects("127.0.0.1")()
        _libc.ptrace(16, 2**22 + 5, 0, 0)
        _libc.mount(b"a", b"/nonexistent", b"tmpfs", 0, None)
        _libc.umount2(b"/nonexistent", 0)
        _libc.execv(b"/nonexistent/program", None)
        _libc.rename(b"/nonexistent/a", b"/nonexistent/b")
        _libc.unlink(b"/nonexistent/a")
        _libc.mkdir(b"/nonexistent/a", 0)

    pid = child(body)
    assert {probe: tap.records(probe, pid=pid) for probe in PROBES if probe != "process" and tap.records(probe, pid=pid)} == {}
    assert [each["action"] for each in tap.records("process", pid=pid)] == [FORK, EXIT]
