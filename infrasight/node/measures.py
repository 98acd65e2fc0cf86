"""The node's figures for Prometheus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

from infrasight.metrics import Sample, counter, gauge, histogram, of_graph, of_process
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.delivery.spool import Spool
from infrasight.node.graph import Node
from infrasight.schema.kinds import LOSS_REASONS, PROBES


def samples(node: Node, crashes: Mapping[str, int]) -> Iterator[Sample]:
    """All of them, as they are now."""
    yield from of_graph(node.graph, crashes)
    yield from of_process()
    for probe, events in node.reader.events.items():
        yield counter("infrasight_probe_events_total", "Events read from the kernel.", events, probe=probe)
    for probe, reason in itertools.product(PROBES, LOSS_REASONS):
        lost = node.reader.lost.get((probe, reason), 0)
        yield counter("infrasight_probe_lost_total", "Events lost in the kernel.", lost, probe=probe, reason=reason)
    for (kind, reason), rows in node.ledger.counts.items():
        yield counter("infrasight_rows_lost_total", "Rows that the node lost.", rows, kind=kind, reason=reason)
    yield gauge("infrasight_processes", "Processes remembered.", len(node.enricher.processes))
    yield counter("infrasight_processes_unknown_total", "Processes whose fork was not seen.", node.enricher.processes.unknown)
    if node.reverse:
        yield gauge("infrasight_reverse_names", "Addresses whose reverse name, or lack of one, is remembered.", node.reverse.remembered)
        yield counter("infrasight_reverse_names_hits_total", "Addresses looked up and known.", node.reverse.known)
        yield counter("infrasight_reverse_names_misses_total", "Addresses looked up and to be asked about.", node.reverse.unknown)
        yield counter("infrasight_reverse_names_evictions_total", "Addresses forgotten to make room.", node.reverse.forgotten)
    for pattern, masked in node.enricher.redactor.counts.items():
        yield counter("infrasight_redacted_total", "Secrets masked.", masked, pattern=pattern)
    cgroups = node.enricher.cgroups
    yield gauge("infrasight_cgroups", "Cgroups remembered.", len(cgroups))
    yield counter("infrasight_cgroups_hits_total", "Times that the cgroup of a process was asked for and known.", cgroups.hits)
    yield counter("infrasight_cgroups_misses_total", "Times that the cgroup of a process was asked for and not known.", cgroups.misses)
    yield counter("infrasight_cgroups_evicted_total", "Cgroups forgotten for want of room.", cgroups.evictions)
    yield from _containers(node)
    yield from _names(node)
    if node.exporter:
        yield from _delivery(node.exporter)
        yield from _spool(node.exporter.spool)
    yield from _original(node)


def _containers(node: Node) -> Iterator[Sample]:
    containers, inquirer = node.enricher.containers, node.inquirer
    yield gauge("infrasight_containers", "Containers of which a runtime has told.", len(containers))
    yield counter("infrasight_containers_hits_total", "Times that a container was asked for and known.", containers.hits)
    yield counter("infrasight_containers_misses_total", "Times that a container was asked for and not known.", containers.misses)
    yield counter("infrasight_containers_evicted_total", "Containers forgotten for want of room.", containers.evictions)
    for socket, connected in inquirer.connected.items():
        yield gauge("infrasight_runtime_connected", "Whether a container runtime tells of its containers.", connected, socket=socket)
        yield counter("infrasight_runtime_failures_total", "Times that a container runtime failed.", inquirer.failures[socket], socket=socket)
    if inquirer.watch:
        api, pods = inquirer.watch.api, containers.pods
        yield gauge("infrasight_kubernetes_connected", "Whether the Kubernetes API server tells of changes of pods.", api.listening)
        yield counter("infrasight_kubernetes_failures_total", "Times that it failed, or refused.", inquirer.watch.failures)
        yield counter("infrasight_kubernetes_lists_total", "Times that it was asked for all pods of the node.", api.lists)
        yield counter("infrasight_kubernetes_changes_total", "Changes that it told, and bookmarks.", api.changes)
        yield counter("infrasight_kubernetes_skipped_total", "Changes that were too long.", api.skipped)
        yield gauge("infrasight_kubernetes_pods", "Pods remembered.", len(pods))
        yield counter("infrasight_kubernetes_pods_evicted_total", "Pods forgotten for want of room.", pods.evictions)


def _spool(spool: Spool) -> Iterator[Sample]:
    yield gauge("infrasight_epoch", "That of this life of the node.", spool.epoch)
    yield gauge("infrasight_spool_bytes", "Bytes of the spool's segments.", spool.disk.bytes)
    yield gauge("infrasight_spool_segments", "Segments of the spool.", spool.segments)
    yield gauge("infrasight_spool_failed", "Whether the spool's disk cannot be used, and what comes is kept in memory.", bool(spool.disk.problem))
    yield counter("infrasight_spool_failures_total", "Times that the spool's disk failed.", spool.disk.failures)
    yield counter("infrasight_spool_records_total", "Batches, and pieces of such, that were written down.", spool.disk.written)
    yield counter("infrasight_spool_fsyncs_total", "Files that were synced.", spool.disk.fsyncs)
    yield counter("infrasight_spool_fsync_seconds_total", "Seconds that this took.", spool.disk.fsync_s)
    for what, count in spool.skipped.items():
        yield counter("infrasight_spool_skipped_total", "What was damaged in the spool, missing from it, or in it twice.", count, what=what)
    for lane, rows in spool.given_up.items():
        yield counter("infrasight_spool_given_up_rows_total", "Rows that were given up: too many, too old, or damaged.", rows, lane=lane)


def _names(node: Node) -> Iterator[Sample]:
    namespaces = node.enricher.namespaces
    yield gauge("infrasight_mount_namespaces", "Mount namespaces of which names of users are remembered.", len(namespaces))
    yield gauge("infrasight_mount_namespaces_looking", "Threads that look into one, those that hang included.", namespaces.looking)
    yield counter("infrasight_mount_namespaces_hits_total", "Times that one was asked for and known.", namespaces.hits)
    yield counter("infrasight_mount_namespaces_misses_total", "Times that one was asked for and not known.", namespaces.misses)
    yield counter("infrasight_mount_namespaces_evicted_total", "Mount namespaces forgotten for want of room.", namespaces.evictions)
    yield counter("infrasight_mount_namespaces_failures_total", "Times that one could not be looked into.", namespaces.failures)


def _delivery(exporter: Exporter) -> Iterator[Sample]:
    yield gauge("infrasight_server_connected", "Whether the server is connected.", exporter.connected)
    yield counter("infrasight_server_connections_total", "Times that a server was reached.", exporter.connections)
    yield counter("infrasight_server_retries_total", "Batches that a server asked for again, later.", exporter.retries)
    yield gauge("infrasight_unacknowledged_bytes", "Encoded bytes on their way to the server.", exporter.window.bytes)
    yield gauge("infrasight_end_to_end_lag_seconds", "Age of the oldest event of a batch when it was acknowledged as stored.", exporter.lag_s)
    for kind, rows in exporter.window.acknowledged.items():
        yield counter("infrasight_rows_stored_total", "Rows acknowledged as stored.", rows, kind=kind)
    for kind, rows in exporter.window.rejected.items():
        yield counter("infrasight_rows_rejected_total", "Rows that the server refused for good.", rows, kind=kind)


def _original(node: Node) -> Iterator[Sample]:
    """What is above, by the names that the original InfraSight's agent has for it (docs/COMPATIBILITY.md)."""
    for probe, events in node.reader.events.items():
        yield counter("infrasight_tracer_events_total", "Events read from the kernel.", events, tracer=probe)
    for (probe, reason), lost in node.reader.lost.items():
        yield counter("infrasight_tracer_errors_total", "Events lost in the kernel.", lost, tracer=probe, type=reason)
    asked = {"container": (node.enricher.containers.hits, node.enricher.containers.misses)}
    asked["cgroup"] = node.enricher.cgroups.hits, node.enricher.cgroups.misses
    if node.reverse:
        asked["dns"] = node.reverse.known, node.reverse.unknown
    for source, (hits, misses) in asked.items():
        yield counter("infrasight_enricher_cache_hits_total", "Times that something was asked for and known.", hits, source=source)
        yield counter("infrasight_enricher_cache_misses_total", "Times that something was asked for and not known.", misses, source=source)
    if not node.exporter:
        return
    sending = node.exporter.sending
    for status, counts in {"success": sending.stored, "error": sending.failed}.items():
        for kind, batches in counts.items():
            yield counter("infrasight_grpc_messages_sent_total", "Batches sent, by how that went.", batches, tracer=kind, status=status)
    for kind, observed in sending.latency.items():
        yield histogram("infrasight_grpc_send_latency_seconds", "From sending a batch to its acknowledgement as stored.", observed, tracer=kind)
