"""The concurrency kit: bounded mailboxes, actors, a graph of them as data, and the supervisor that runs one.

Belongs here: how work is queued, started, restarted, drained and stopped. Does not belong here: anything about events, kernels,
databases or wires. This room imports the standard library and `infrasight.errors`, nothing else. One event loop, no threads.

    mailbox.py      Mailbox: the only queue there is, bounded by items or by bytes
    actor.py        Actor: one long-lived piece of work with a name
    graph.py        Graph and Edge: who sends to whom, checked and drawn
    restarts.py     RestartPolicy: how many crashes are forgiven (decides, does nothing)
    supervisor.py   Supervisor: starts, restarts, drains and stops a graph
"""

from infrasight.actors.actor import Actor
from infrasight.actors.graph import Edge, Graph
from infrasight.actors.mailbox import Mailbox, MailboxStatistics, WhenFull
from infrasight.actors.precedence import take_precedence
from infrasight.actors.signals import on_stop_signals
from infrasight.actors.supervisor import RestartPolicy, Supervisor

__all__ = ["Actor", "Edge", "Graph", "Mailbox", "MailboxStatistics", "RestartPolicy", "Supervisor", "WhenFull", "on_stop_signals", "take_precedence"]
