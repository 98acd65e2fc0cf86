"""The table of mount namespaces: who is looked into, when, and who waits for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from infrasight.kernel import Records
from infrasight.node.names import namespaces as module
from infrasight.node.names.inside import UNKNOWN, File, Inside
from infrasight.node.names.namespaces import AT_ONCE, CHECK_EVERY_S, SETTLED_S, WAITING_MAX, Namespaces
from infrasight.schema.events.process import CWD, EXEC, FORK
from tests.node.records import life, together
from tests.waiting import until

OWN, OURS = 1, (9, 9)
ALL = ((0, 0, 2**32 - 1),)


def named(name: bytes = b"web", root: tuple[int, int] = (5, 5), more: int = 0, above: tuple[int, int] = UNKNOWN) -> Inside:
    names = {33: name} | {1000 + number: b"x" for number in range(more)}
    return Inside(root, File((1, 1, 1, 1), names), File(), ALL, ALL, above)


class Looks:
    """Stands for the files: what is found for whom, who asked, and who hangs."""

    def __init__(self) -> None:
        self.found: dict[int, Inside] = {}
        self.asked: list[tuple[int, int]] = []
        self.hanging: set[int] = set()
        self.over = threading.Event()

    def __call__(self, pid: int, namespace: int, before: Inside | None) -> Inside:
        self.asked.append((pid, namespace))
        if namespace in self.hanging:
            self.over.wait(600)
        if pid not in self.found:
            raise ProcessLookupError
        return self.found[pid]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def looks() -> Any:
    looks = Looks()
    yield looks
    looks.over.set()


def table(looks: Looks, clock: Callable[[], float] = time.monotonic, **more: int) -> Namespaces:
    made = Namespaces(look=looks, clock=clock, **more)
    made.is_own(OWN, OURS)
    return made


def executed(*each: tuple[int, int], action: int = EXEC) -> Records:
    """Process and namespace."""
    return together(*(life(action, pid, pid, mount_ns=namespace) for pid, namespace in each))


async def test_a_namespace_is_known_once_a_program_is_executed_there(looks: Looks) -> None:
    names = table(looks)
    looks.found = {7: named()}
    names.meet(executed((7, 2)))
    await names.wait(20)
    found = names.find(2, 7)
    assert found is not None
    assert (found.user(33), names.hits, names.misses, len(names), names.names) == (b"web", 1, 0, 1, 2)


async def test_who_is_not_looked_into(looks: Looks) -> None:
    """The node's own, what is not known, and who has only been forked: a container is in its namespace before it is at its root."""
    names = table(looks)
    names.meet(executed((7, OWN), (8, 0)))
    names.meet(executed((9, 2), action=FORK))
    await names.wait()
    assert names.find(2, 9) is None
    assert (looks.asked, names.misses) == ([], 1)


async def test_one_in_which_nothing_is_executed_is_looked_into_a_while_later(looks: Looks) -> None:
    clock = Clock()
    names = table(looks, clock)
    looks.found = {7: named()}
    assert names.find(2, 7) is None
    clock.now += SETTLED_S
    assert names.find(2, 7) is None
    await until(lambda: len(looks.asked) == 1 and not names.looking)
    assert names.find(2, 7) is not None


async def test_processes_that_are_gone_are_passed_over(looks: Looks) -> None:
    names = table(looks)
    looks.found = {7: named()}
    names.meet(executed((6, 2), (7, 2), (8, 2)))
    await names.wait(20)
    assert names.find(2, 8) is not None
    assert looks.asked[-1][0] == 7


async def test_all_are_gone(looks: Looks) -> None:
    """It has numbers for names, and the next who is met is asked."""
    names = table(looks)
    names.meet(executed((6, 2)))
    await names.wait(20)
    assert (names.find(2, 6), names.failures) == (None, 1)
    looks.found = {7: named()}
    names.meet(executed((7, 2)))
    await names.wait(20)
    assert names.find(2, 7) is not None


async def test_changes_are_seen_from_time_to_time(looks: Looks) -> None:
    clock = Clock()
    names = table(looks, clock)
    looks.found = {7: named(b"one")}
    names.meet(executed((7, 2)))
    await names.wait(20)
    looks.found = {7: named(b"two", more=3)}
    for _ in range(10):
        names.meet(executed((7, 2)))
        assert names.find(2, 7).user(33) == b"one"  # type: ignore[union-attr]
    assert len(looks.asked) == 1
    clock.now += CHECK_EVERY_S
    assert names.find(2, 7).user(33) == b"one"  # type: ignore[union-attr]
    await until(lambda: not names.looking)
    assert names.find(2, 7).user(33) == b"two"  # type: ignore[union-attr]
    assert (len(looks.asked), names.names) == (2, 5)


async def test_one_that_has_the_nodes_root_is_looked_at_with_each_program(looks: Looks) -> None:
    """A hook of a runtime's runs before the container comes to its root."""
    names = table(looks)
    looks.found = {7: named(b"host", OURS), 8: named(b"container")}
    names.meet(executed((7, 2)))
    await names.wait(20)
    assert names.find(2, 7).user(33) == b"host"  # type: ignore[union-attr]
    names.meet(executed((8, 2)))
    await names.wait(20)
    assert names.find(2, 8).user(33) == b"container"  # type: ignore[union-attr]


async def test_who_was_there_first_is_tried_when_all_others_have_ended(looks: Looks) -> None:
    """A shell whose commands are short: once at the host's root still, once at its own."""
    names = table(looks)
    looks.found = {7: named(b"host", OURS)}
    names.meet(executed((7, 2), *((pid, 2) for pid in range(100, 120))))
    await names.wait(20)
    assert names.find(2, 119).user(33) == b"host"  # type: ignore[union-attr]
    looks.found = {7: named(b"container")}
    names.meet(executed(*((pid, 2) for pid in range(120, 140))))
    await names.wait(20)
    assert names.find(2, 139).user(33) == b"container"  # type: ignore[union-attr]


async def test_nobody_waits_long_for_one_that_hangs(looks: Looks) -> None:
    """And then goes without for some time; what comes later is known all the same."""
    names = table(looks)
    looks.hanging, looks.found = {2}, {7: named(), 8: named(b"other")}
    names.meet(executed((7, 2)))
    began_s = time.monotonic()
    await names.wait()
    assert 0.9 * module.WAIT_S <= time.monotonic() - began_s < 20
    names.meet(executed((8, 3)))
    began_s = time.monotonic()
    await names.wait(60)
    assert time.monotonic() - began_s < 20, "not again so soon"
    await until(lambda: names.find(3, 8) is not None)
    assert (names.find(2, 7), names.looking) == (None, 1)
    looks.over.set()
    await until(lambda: names.find(2, 7) is not None)


async def test_so_many_hang_at_most(looks: Looks) -> None:
    """The others wait, so many, until one of those is done with."""
    names = table(looks)
    looks.hanging = set(range(2, 2 + AT_ONCE))
    names.meet(executed(*((namespace, namespace) for namespace in range(2, 2 + AT_ONCE))))
    looks.found = {namespace: named() for namespace in range(2, 1000)}
    names.meet(executed(*((namespace, namespace) for namespace in range(100, 110 + WAITING_MAX))))
    await until(lambda: len(looks.asked) == AT_ONCE)
    assert (names.looking, len(names._waiting)) == (AT_ONCE, WAITING_MAX)
    looks.over.set()
    await until(lambda: not names.looking)
    assert [names.find(namespace, namespace) is not None for namespace in (2, 109 + WAITING_MAX, 100)] == [True, True, False]


async def test_there_are_so_many_at_most(looks: Looks) -> None:
    names = table(looks, most=3)
    looks.found = {pid: named() for pid in range(2, 8)}
    for namespace in range(2, 8):
        names.meet(executed((namespace, namespace)))
        await names.wait(20)
        names.find(2, 2)
    assert (len(names), names.evictions, names.names) == (3, 3, 6)
    assert names.find(2, 2) is not None, "which is asked for all the time"


async def test_names_are_so_many_at_most(looks: Looks) -> None:
    names = table(looks, names=100)
    looks.found = {pid: named(more=40) for pid in range(2, 8)}
    for namespace in range(2, 8):
        names.meet(executed((namespace, namespace)))
        await names.wait(20)
    assert (len(names), names.evictions, names.names) == (2, 4, 84)


async def test_those_that_there_are_at_the_start(looks: Looks) -> None:
    names = table(looks)
    looks.found = {7: named(), 8: named(b"other")}
    await names.prime({2: 7, 3: 8, 4: 9})
    assert [names.find(namespace, 0) is not None for namespace in (2, 3, 4)] == [True, True, False]


AGAIN = 1 << 32
"""The next that has the same inode number."""


async def test_one_that_has_the_inode_number_of_another(looks: Looks) -> None:
    """As one container has after the other: it is another. That is so of the node's own, too."""
    names = table(looks)
    looks.found = {7: named(b"web"), 8: named(b"db", (6, 6))}
    names.meet(executed((7, AGAIN + 2)))
    await names.wait(20)
    names.meet(executed((8, 2 * AGAIN + 2), (9, AGAIN + OWN)))
    await names.wait(20)
    found = [names.find(number * AGAIN + 2, 0) for number in (1, 2)]
    assert [each and each.user(33) for each in found] == [b"web", b"db"]
    assert [namespace for _, namespace in looks.asked] == [AGAIN + 2, 2 * AGAIN + 2]


async def test_one_that_was_found_is_the_next_of_its_inode_number(looks: Looks) -> None:
    """In /proc there is no more to be known of it: who was found there is in that one from then on, and the next of the number is another again."""
    names = table(looks)
    looks.found = {7: named(b"web"), 8: named(b"db", (6, 6))}
    await names.prime({2: 7})
    names.meet(executed((6, AGAIN + 2)))
    await names.wait(20)
    found = [names.find(namespace, 7) for namespace in (2, AGAIN + 2)]
    assert [each and each.user(33) for each in found] == [b"web", b"web"]
    assert (looks.asked, len(names)) == ([(7, 2)], 1)
    names.meet(executed((8, 2 * AGAIN + 2)))
    await names.wait(20)
    another = names.find(2 * AGAIN + 2, 8)
    assert another is not None
    assert another.user(33) == b"db"


async def test_one_that_is_told_of_while_it_is_looked_into(looks: Looks) -> None:
    names = table(looks)
    looks.found, looks.hanging = {7: named()}, {2}
    await names.prime({2: 7}, 0.01)
    assert names.find(AGAIN + 2, 6) is None
    looks.over.set()
    await until(lambda: names.find(AGAIN + 2, 6) is not None)
    assert not names.looking


async def test_a_container_is_known_before_its_program_is_executed(looks: Looks) -> None:
    """A runtime comes to the container's root some time before; then nothing has to be looked into when the program is executed, which may end at
    once."""
    names = table(looks)
    looks.found = {7: named(above=OURS)}
    names.meet(executed((7, 2), (7, 2), (7, 2), action=CWD))
    await until(lambda: names.find(2, 7) is not None)
    looks.found = {}
    names.meet(executed((7, 2)))
    names.meet(executed((7, 2), action=CWD))
    await names.wait(20)
    assert names.find(2, 7) is not None
    assert (looks.asked, names.failures) == ([(7, 2)], 0)


@pytest.mark.parametrize(("root", "above"), [(OURS, (8, 8)), ((8, 8), (8, 8)), ((5, 5), UNKNOWN)], ids=["ours", "its parent's", "who knows"])
async def test_who_has_not_come_to_a_root_of_its_own_yet(looks: Looks, root: tuple[int, int], above: tuple[int, int]) -> None:
    """Is looked into again, when it has come elsewhere, and when a program is executed; that it was not there yet is no failure."""
    names = table(looks)
    looks.found = {7: named(root=root, above=above)}
    names.meet(executed((7, 2), action=CWD))
    await until(lambda: len(looks.asked) == 1 and not names.looking)
    assert (names.find(2, 7), names.failures) == (None, 0)
    names.meet(executed((7, 2), action=CWD))
    await until(lambda: len(looks.asked) == 2 and not names.looking)
    names.meet(executed((7, 2)))
    await names.wait(20)
    found = names.find(2, 7)
    assert found is not None
    assert found.root == root


async def test_numbers_are_forgotten_with_their_namespaces(looks: Looks) -> None:
    names = table(looks, most=3)
    names.meet(executed(*((pid, pid | pid << 32) for pid in range(1, 40))))
    await until(lambda: not names.looking)
    assert len(names._told) <= 3
