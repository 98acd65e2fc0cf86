"""Rules that take the place of others, and lists that are full."""

import mmap
import os
import time

import pytest

from infrasight.errors import KernelError
from infrasight.kernel.rules import MAPS, Rules
from infrasight.node.policy.policy import MOST
from tests.kernel.filters.children import SOMEBODY, child, chmods, follow, losses, opens, told, users
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


@pytest.mark.serial  # it counts what happens in a time
def test_rules_that_change_while_events_happen(tap: Tap) -> None:
    """Who is allowed before and after is told without a gap, though lists come and go around it."""
    at_once, over = 101, mmap.mmap(-1, mmap.PAGESIZE)
    follow(tap, chmod=Rules(allow=users(SOMEBODY)))
    before = losses(tap)
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        while not over[0]:
            chmods(at_once)()
            os.write(writer, b".")
            time.sleep(0.001)
        os._exit(0)
    os.close(writer)
    for change in range(50):
        follow(tap, chmod=Rules(allow=users(SOMEBODY, *range(10, 10 + change % 7))), open=Rules(deny=users(SOMEBODY)))
    over[0] = 1
    with os.fdopen(reader, "rb") as pipe:
        count = at_once * len(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    assert count
    assert len(told(tap, pid, "chmod")) + (losses(tap) - before)["chmod", "ring_full"] == count


def test_lists_that_are_full(tap: Tap) -> None:
    """KernelError; the next rules have all the room there is."""
    with pytest.raises(KernelError):
        follow(tap, open=Rules(deny=users(*range(100_000, 110_000))))
    follow(tap, open=Rules(deny=users(SOMEBODY, *range(200_000, 200_000 + MOST["uid"] - 1))))
    assert (len(told(tap, child(opens(3), uid=SOMEBODY))), len(told(tap, child(opens(3))))) == (0, 3)
    follow(tap, open=Rules())
    assert [tap.tracing.maps[name].all_keys() for name in MAPS.values()] == [[]] * len(MAPS)


def test_a_full_list_in_place_of_another(tap: Tap) -> None:
    """As many as docs/FILTERS.md says that there can be, before and after."""
    follow(tap, open=Rules(deny=users(SOMEBODY, *range(300_000, 300_000 + MOST["uid"] - 1))))
    follow(tap, open=Rules(deny=users(*range(400_000, 400_000 + MOST["uid"]))))
    assert len(told(tap, child(opens(3), uid=SOMEBODY))) == 3
    assert len(tap.tracing.maps[MAPS["uid"]].all_keys()) == MOST["uid"]
