"""What a graph accepts, refuses, orders and draws."""

import pytest

from infrasight.actors import Actor, Edge, Graph, Mailbox, WhenFull


class Idle(Actor):
    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self) -> None:
        return


def actors(*names: str) -> list[Actor]:
    return [Idle(name) for name in names]


def box(name: str) -> Mailbox[int]:
    return Mailbox(name, limit=4)


def names(found: tuple[Actor, ...]) -> list[str]:
    return [actor.name for actor in found]


def test_order_is_upstream_first_whatever_the_listing() -> None:
    graph = Graph("g", actors("store", "router", "live", "ingest"),
                  [Edge(box("a"), "router", "store"), Edge(box("b"), "router", "live"), Edge(box("c"), "ingest", "router")])
    order = names(graph.order)
    assert order[:2] == ["ingest", "router"]
    assert set(order[2:]) == {"store", "live"}
    assert names(graph.sources()) == ["ingest"]


def test_shared_mailboxes_know_all_their_ends() -> None:
    shared = box("shared")
    graph = Graph("g", actors("a", "b", "c"), [Edge(shared, "a", "c"), Edge(shared, "b", "c")])
    assert graph.mailboxes == (shared,)
    assert graph.senders(shared) == {"a", "b"}
    assert graph.receivers(shared) == {"c"}
    assert graph.inboxes("c") == (shared,)
    assert graph.outboxes("c") == ()


def test_the_drawing_has_one_line_an_edge() -> None:
    views: Mailbox[int] = Mailbox("views", limit=16, when_full=WhenFull.DROP_OLDEST)
    edges = [Edge(box("rows"), "router", "store"), Edge(views, "router", "live")]
    graph = Graph("server", actors("clock", "router", "store", "live"), edges)
    assert graph.describe().splitlines() == [
        "server",
        "  router >> store  [rows: limit 4, when full block]",
        "  router >> live   [views: limit 16, when full drop_oldest]",
        "  clock  (no edges)",
    ]


def test_statistics_are_by_mailbox_name() -> None:
    rows = box("rows")
    rows.put_nowait(1)
    graph = Graph("g", actors("a", "b"), [Edge(rows, "a", "b")])
    assert {name: statistics.depth for name, statistics in graph.statistics().items()} == {"rows": 1}


def test_refuses_two_actors_of_one_name() -> None:
    with pytest.raises(ValueError, match="actor 'a'"):
        Graph("g", actors("a", "a"), [])


def test_refuses_two_mailboxes_of_one_name() -> None:
    with pytest.raises(ValueError, match="mailbox 'm'"):
        Graph("g", actors("a", "b", "c"), [Edge(box("m"), "a", "b"), Edge(box("m"), "b", "c")])


def test_refuses_an_edge_twice() -> None:
    shared = box("m")
    with pytest.raises(ValueError, match="edge"):
        Graph("g", actors("a", "b"), [Edge(shared, "a", "b"), Edge(shared, "a", "b")])


def test_refuses_an_end_that_is_no_actor() -> None:
    with pytest.raises(ValueError, match="'nobody'"):
        Graph("g", actors("a"), [Edge(box("m"), "a", "nobody")])


@pytest.mark.parametrize("ends", [[("a", "a")], [("a", "b"), ("b", "a")], [("a", "b"), ("b", "c"), ("c", "a")]])
def test_refuses_cycles(ends: list[tuple[str, str]]) -> None:
    edges = [Edge(box(f"m{number}"), source, target) for number, (source, target) in enumerate(ends)]
    with pytest.raises(ValueError, match="cycle"):
        Graph("g", actors("a", "b", "c"), edges)


def test_refuses_a_cycle_through_a_shared_mailbox() -> None:
    """No edge says b >> c, yet c gets what b puts into the mailbox they share."""
    shared = box("shared")
    with pytest.raises(ValueError, match="cycle"):
        Graph("g", actors("a", "b", "c", "d"), [Edge(shared, "a", "c"), Edge(shared, "b", "d"), Edge(box("back"), "c", "b")])
