"""A graph of actors as data: who sends to whom through which mailbox. Checked when made, drawn on request."""

import graphlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from infrasight.actors.actor import Actor
from infrasight.actors.mailbox import Mailbox, MailboxStatistics


@dataclass(frozen=True)
class Edge:
    """`source` puts into `mailbox`, `target` gets from it. Actors that share a mailbox have an edge each, with the same mailbox."""

    mailbox: Mailbox[Any]
    source: str
    """An actor's name."""
    target: str
    """An actor's name."""


class Graph:
    """Actors and edges, acyclic. Immutable; a Supervisor runs it."""

    def __init__(self, name: str, actors: Sequence[Actor], edges: Sequence[Edge]) -> None:
        """Raises ValueError: two actors or two mailboxes of one name, an edge twice, an edge's end that is no actor, a cycle."""
        self.name = name
        self.actors = tuple(actors)
        self.edges = tuple(edges)
        self.mailboxes = tuple(dict.fromkeys(edge.mailbox for edge in edges))
        self._check_unique("actor", (actor.name for actor in self.actors))
        self._check_unique("mailbox", (mailbox.name for mailbox in self.mailboxes))
        self._check_unique("edge", (f"{e.source} >> {e.mailbox.name} >> {e.target}" for e in self.edges))
        self._check_ends()
        self.order = self._sorted()
        """Actors, each upstream of those that it sends to."""

    def sources(self) -> tuple[Actor, ...]:
        """Actors without an input."""
        return tuple(actor for actor in self.order if not self.inboxes(actor.name))

    def inboxes(self, actor: str) -> tuple[Mailbox[Any], ...]:
        """The mailboxes that the actor of this name gets from."""
        return tuple(dict.fromkeys(edge.mailbox for edge in self.edges if edge.target == actor))

    def outboxes(self, actor: str) -> tuple[Mailbox[Any], ...]:
        """The mailboxes that the actor of this name puts into."""
        return tuple(dict.fromkeys(edge.mailbox for edge in self.edges if edge.source == actor))

    def senders(self, mailbox: Mailbox[Any]) -> frozenset[str]:
        """Names of the actors that put into it."""
        return frozenset(edge.source for edge in self.edges if edge.mailbox is mailbox)

    def receivers(self, mailbox: Mailbox[Any]) -> frozenset[str]:
        """Names of the actors that get from it."""
        return frozenset(edge.target for edge in self.edges if edge.mailbox is mailbox)

    def statistics(self) -> dict[str, MailboxStatistics]:
        """Each mailbox's statistics by its name."""
        return {mailbox.name: mailbox.statistics() for mailbox in self.mailboxes}

    def describe(self) -> str:
        """The graph as text, upstream first: one line an edge, with its mailbox's limit (in that mailbox's units) and policy."""
        rank = {actor.name: place for place, actor in enumerate(self.order)}
        edges = sorted(self.edges, key=lambda edge: (rank[edge.source], rank[edge.target]))
        ends = [f"{edge.source} >> {edge.target}" for edge in edges]
        width = max(map(len, ends), default=0)
        lines = [f"{end:<{width}}  {_describe_mailbox(edge.mailbox)}" for end, edge in zip(ends, edges, strict=True)]
        joined = {name for edge in edges for name in (edge.source, edge.target)}
        lines += [f"{actor.name}  (no edges)" for actor in self.order if actor.name not in joined]
        return "\n".join([self.name, *(f"  {line}" for line in lines)])

    def _check_unique(self, what: str, names: Iterable[str]) -> None:
        seen: set[str] = set()
        for name in names:
            if name in seen:
                raise ValueError(f"graph {self.name!r}: two of {what} {name!r}")
            seen.add(name)

    def _check_ends(self) -> None:
        names = {actor.name for actor in self.actors}
        for edge in self.edges:
            for end in (edge.source, edge.target):
                if end not in names:
                    raise ValueError(f"graph {self.name!r}: mailbox {edge.mailbox.name!r} has an end {end!r}, which is no actor")

    def _sorted(self) -> tuple[Actor, ...]:
        """Topological. Whoever gets from a mailbox is downstream of all who put into it, whichever edges say so."""
        by_name = {actor.name: actor for actor in self.actors}
        upstream = {name: sorted({sender for mailbox in self.inboxes(name) for sender in self.senders(mailbox)}) for name in by_name}
        try:
            return tuple(by_name[name] for name in graphlib.TopologicalSorter(upstream).static_order())
        except graphlib.CycleError as error:
            raise ValueError(f"graph {self.name!r}: a cycle, {' >> '.join(error.args[1])}") from error


def _describe_mailbox(mailbox: Mailbox[Any]) -> str:
    return f"[{mailbox.name}: limit {mailbox.limit}, when full {mailbox.when_full.value}]"
