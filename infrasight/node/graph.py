"""How the node is wired.

to a server       reader >> enricher >> batcher >> exporter
to nowhere        reader >> enricher >> batcher >> discarder
to the terminal   reader >> enricher >> printer
with --reverse-dns          enricher >> resolver
beside it         inquirer, who has runtimes tell of containers, and Kubernetes of pods, >> batcher or printer
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from infrasight import __version__
from infrasight.actors import Actor, Edge, Graph, Mailbox
from infrasight.kernel import Tracing
from infrasight.node.containers.inquirer import Inquirer
from infrasight.node.containers.table import Containers
from infrasight.node.delivery.batcher import Batcher, Limits
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.delivery.spool import Spool
from infrasight.node.delivery.tally import Tally
from infrasight.node.enricher import Enricher
from infrasight.node.flow import Attention, Batch, Drain, Encoded
from infrasight.node.identity import boot_id
from infrasight.node.ledger import Ledger
from infrasight.node.names.reverse import Resolver, ReverseNames, asking
from infrasight.node.printer import Discarder, Printer
from infrasight.node.reader import Reader
from infrasight.node.settings import Settings
from infrasight.runtimes import of_users
from infrasight.wire import Hello

DRAIN_BYTES = 4 << 20
"""Records between reader and enricher."""
BATCH_BYTES = 2 << 20
"""Columns between enricher and batcher."""
PATIENCE_S = 0.2
"""How long events that come in a steady flow and that nobody watches wait in the rings; longer where it costs much. They wait to be stored with
others in any case, and there it costs nothing."""
ENCODED_BYTES = 2 << 20
"""Encoded batches that wait for the exporter's window."""


@dataclass
class Node:
    """The actors that others ask for figures, and the graph that they run in."""

    graph: Graph
    reader: Reader
    enricher: Enricher
    inquirer: Inquirer
    exporter: Exporter | None
    reverse: ReverseNames | None
    ledger: Ledger


def build(tracing: Tracing, settings: Settings) -> Node:
    """A node that has not started yet."""
    drains: Mailbox[Drain] = Mailbox("drains", limit=DRAIN_BYTES, weigh=Drain.weight)
    batches: Mailbox[Batch] = Mailbox("batches", limit=BATCH_BYTES, weigh=Batch.weight)
    encoded: Mailbox[Encoded] = Mailbox("encoded", limit=ENCODED_BYTES, weigh=Encoded.weight)

    boot = boot_id()
    family = tuple(pid for pid in (os.getpid(), settings.family_pid) if pid)
    printing = settings.output in ("compact", "json")
    attention = Attention(watched=printing)
    patience_s = min(settings.batch_age_s, PATIENCE_S)
    ledger = Ledger()
    spool = _spool(settings, ledger)
    tally = spool.tally if spool else Tally()
    reader = Reader(tracing, drains, settings.interval_s, (patience_s, 2.5 * patience_s), attention, ledger, tally)
    reverse = ReverseNames(private=settings.reverse_dns_private) if settings.reverse_dns else None
    containers = Containers()
    enricher = Enricher(drains, batches, node=settings.node, boot=boot, family=family, reverse=reverse, containers=containers, tally=tally)
    users = of_users if settings.of_users else None
    asked: dict[str, Any] = {"users": users, "kubernetes": settings.kubernetes, "node": settings.node}
    inquirer = Inquirer(containers, enricher.cgroups, batches, settings.places, tally=tally, **asked)
    actors: list[Actor] = [reader, enricher, inquirer]
    edges = [Edge(drains, "reader", "enricher")]
    if reverse:
        actors.append(Resolver(reverse, asking()))
        edges.append(Edge(reverse.questions, "enricher", "resolver"))
    exporter = None

    if printing:
        actors.append(Printer(batches, settings.output))
        edges += [Edge(batches, source, "printer") for source in ("enricher", "inquirer")]
    else:
        limits = Limits(age_s=settings.batch_age_s, longest_age_s=10 * settings.batch_age_s)
        actors.append(Batcher(batches, encoded, limits, attention=attention))
        if spool:
            hello = Hello(node=settings.node, version=__version__, boot_id=boot)
            more: dict[str, Any] = {"insecure": settings.insecure, "credentials": settings.credentials, "reach_within_s": settings.reach_within_s}
            exporter = Exporter(encoded, settings.servers, hello, spool, attention=attention, **more)
        end: Actor = exporter or Discarder(encoded)
        actors.append(end)
        edges += [*(Edge(batches, source, "batcher") for source in ("enricher", "inquirer")), Edge(encoded, "batcher", end.name)]

    return Node(Graph("node", actors, edges), reader, enricher, inquirer, exporter, reverse, ledger)


def _spool(settings: Settings, ledger: Ledger) -> Spool | None:
    """Where what goes to a server waits for it, open; None when nothing does."""
    if settings.output != "server":
        return None
    spool = Spool(settings.spool, settings.spool_limits, ledger=ledger)
    spool.open()
    return spool
