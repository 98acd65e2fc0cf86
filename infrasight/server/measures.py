"""The server's figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from infrasight.metrics import Sample, counter, gauge, of_graph, of_process
from infrasight.server.graph import Server


def samples(server: Server, crashes: Mapping[str, int]) -> Iterator[Sample]:
    """All of them, as they are now."""
    yield from of_graph(server.graph, crashes)
    yield from of_process()
    status = server.status()
    yield gauge("infrasight_store_reachable", "Whether the last insert worked.", status.store_reachable)
    yield gauge("infrasight_nodes_connected", "Nodes that are connected.", sum(node.connected for node in status.nodes))
    rivals = sum(len(node.live_epochs) > 1 for node in status.nodes)
    yield gauge("infrasight_nodes_contended", "Names under which more than one node ships, it seems.", rivals)
    retried = sum(node.retried_batches for node in status.nodes)
    yield counter("infrasight_batches_retried_total", "Batches that nodes were asked to send again.", retried)
    yield gauge("infrasight_subscribers", "Live views that are open.", status.subscribers)
    healer = server.healer
    yield gauge("infrasight_unhealed_containers", "Containers that are not known yet and of which rows are stored.", healer.waiting)
    yield counter("infrasight_healed_containers_total", "Containers whose rows were completed once they were known.", healer.healed)
    yield counter("infrasight_unhealed_given_up_total", "Containers that nobody told of in time.", healer.given_up)
    yield counter("infrasight_unhealed_forgotten_total", "Containers forgotten for want of room, until the next start.", healer.forgotten)
    yield counter("infrasight_healing_failures_total", "Times that the store failed to heal rows.", healer.failures)
    for kind in status.kinds:
        yield counter("infrasight_rows_stored_total", "Rows stored.", kind.rows, kind=kind.name)
        yield counter("infrasight_batches_stored_total", "Batches stored.", kind.batches, kind=kind.name)
    for reason, count in status.refused.items():
        yield counter("infrasight_refused_total", "Messages refused.", count, reason=reason)
