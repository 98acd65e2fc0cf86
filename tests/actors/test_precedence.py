"""Precedence over other processes: taken by a process that may, in a session of its own or in another's."""

import os
import subprocess
import sys

import pytest

SAY = """
import os, sys, threading
from infrasight.actors import take_precedence
os.setuid(int(sys.argv[2]))  # only now: another user may not reach what is imported
take_precedence(int(sys.argv[1]))
threads = []
thread = threading.Thread(target=lambda: threads.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
thread.start()
thread.join()
group = open("/proc/self/autogroup").read().split()[-1:] if os.path.exists("/proc/self/autogroup") else []
print(os.getpriority(os.PRIO_PROCESS, 0), *threads, *group or [None])  # a session that is in no group of its own reads nothing
"""


def said(nice: int, *, session: bool, user: int | None = None) -> tuple[list[str], str]:
    command = [sys.executable, "-c", SAY, str(nice), str(os.getuid() if user is None else user)]
    done = subprocess.run(command, start_new_session=session, capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


@pytest.mark.needs("root")
def test_over_threads_and_the_own_session() -> None:
    (nice, thread, group), error = said(-7, session=True)
    assert (nice, thread, error) == ("-7", "-7", "")
    assert group in ("-7", "None")


@pytest.mark.needs("root")
def test_a_session_of_others_is_left_alone() -> None:
    before = said(os.getpriority(os.PRIO_PROCESS, 0), session=False)[0][-1]
    (nice, _, group), _ = said(-7, session=False)
    assert (nice, group) == ("-7", before)


def test_without_the_right_everything_stays() -> None:
    before = str(os.getpriority(os.PRIO_PROCESS, 0))
    (nice, thread, _), error = said(-20, session=True, user=65534 if os.geteuid() == 0 else None)
    assert (nice, thread) == (before, before)
    assert error == "infrasight runs with no precedence over others: Permission denied\n"
