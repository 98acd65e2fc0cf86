"""What Prometheus reads is what the process knows at that moment."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from infrasight.actors import Actor, Edge, Graph, Mailbox, WhenFull
from infrasight.errors import MetricsError
from infrasight.metrics import Histogram, Sample, counter, gauge, histogram, of_graph, of_process, serve
from tests.ports import free_port


async def get(port: int, path: str) -> tuple[int, str, str]:
    """Status, content type, text."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, answer.headers["Content-Type"], await answer.text()


def parsed(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by name and labels, read by Prometheus's own parser."""
    return {(s.name, frozenset(s.labels.items())): s.value for family in text_string_to_metric_families(text) for s in family.samples}


class Idle(Actor):
    def __init__(self, name: str) -> None:
        self.name = name

    async def run(self) -> None:
        return


async def test_a_scrape_asks_at_that_moment() -> None:
    count, port = 0, free_port()

    def collect() -> Iterator[Sample]:
        nonlocal count
        count += 1
        yield counter("infrasight_scrapes_total", "Scrapes.", count)
        yield gauge("infrasight_temperature", "How warm.", -1.5, place='a"b\\c\nd')
        yield gauge("infrasight_temperature", "How warm.", 7, place="")

    async with serve(port, collect):
        assert count == 0
        for scrape in (1, 2):
            status, kind, text = await get(port, "/metrics")
            assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
            assert parsed(text) == {
                ("infrasight_scrapes_total", frozenset()): scrape,
                ("infrasight_temperature", frozenset({("place", 'a"b\\c\nd')})): -1.5,
                ("infrasight_temperature", frozenset({("place", "")})): 7,
            }
            assert "# TYPE infrasight_scrapes_total counter" in text
            assert text.count("# TYPE infrasight_temperature gauge") == 1
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(port, "/metrics")


async def test_a_histogram_says_how_many_were_within_each_limit() -> None:
    port, observed = free_port(), {"a": Histogram(), "b": Histogram()}
    for value in (0.0, 0.005, 0.006, 0.3, 11.0):
        observed["a"].observe(value)
    async with serve(port, lambda: [histogram("infrasight_wait_seconds", "Waits.", each, what=what) for what, each in observed.items()]):
        found = parsed((await get(port, "/metrics"))[2])

    def figure(name: str, what: str, **more: str) -> float:
        return found[f"infrasight_wait_seconds_{name}", frozenset({"what": what, **more}.items())]

    counts = {limit: figure("bucket", "a", le=limit) for limit in ("0.005", "0.01", "0.25", "0.5", "10.0", "+Inf")}
    assert counts == {"0.005": 2, "0.01": 3, "0.25": 3, "0.5": 4, "10.0": 4, "+Inf": 5}
    assert (figure("count", "a"), figure("count", "b")) == (5, 0)
    assert figure("sum", "a") == pytest.approx(11.311)


async def test_the_rest_of_the_endpoint() -> None:
    port = free_port()
    async with serve(port, lambda: []):
        assert (await get(port, "/healthz"))[::2] == (200, "ok\n")
        assert (await get(port, "/elsewhere"))[0] == 404
        assert (await get(port, "/metrics"))[::2] == (200, "")


async def test_a_collector_that_fails_harms_only_its_scrape() -> None:
    port = free_port()

    def fail() -> list[Sample]:
        raise RuntimeError("no figures today")

    async with serve(port, fail):
        status, _, text = await get(port, "/metrics")
        assert status == 500
        assert "no figures today" not in text
        assert (await get(port, "/healthz"))[0] == 200


async def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MetricsError, match=rf"127\.0\.0\.1:{port}") as error:
            async with serve(port, lambda: []):
                pass
    assert "\n" not in str(error.value)


async def test_port_0_serves_nothing() -> None:
    async with serve(0, lambda: pytest.fail("nobody can have asked")):
        pass


async def test_a_graphs_edges_and_crashes() -> None:
    full = Mailbox[bytes]("reader to writer", limit=10, when_full=WhenFull.DROP_OLDEST, weigh=len)
    graph = Graph("test", [Idle("reader"), Idle("writer")], [Edge(full, "reader", "writer")])
    for item in (b"1234", b"12345", b"123456"):
        assert full.put_nowait(item)
    full.get_nowait()
    full.put_nowait(b"1")
    found = {(s.name, tuple(s.labels.values())): s.value for s in of_graph(graph, {"writer": 3})}
    edge = ("reader to writer", "reader", "writer")
    statistics = full.statistics()
    assert statistics.dropped > 0
    assert found == {
        ("infrasight_edge_accepted_total", edge): 4,
        ("infrasight_edge_delivered_total", edge): 1,
        ("infrasight_edge_dropped_total", edge): statistics.dropped,
        ("infrasight_edge_depth", edge): 3 - statistics.dropped,
        ("infrasight_edge_weight", edge): statistics.weight,
        ("infrasight_edge_weight_peak", edge): statistics.peak_weight,
        ("infrasight_edge_limit", edge): 10,
        ("infrasight_actor_crashes_total", ("reader",)): 0,
        ("infrasight_actor_crashes_total", ("writer",)): 3,
    }


def test_the_process_knows_its_own_memory_and_time() -> None:
    before = {sample.name: sample.value for sample in of_process()}
    ballast = bytearray(64 << 20)
    sum(ballast[:: 1 << 12])
    for i in range(len(ballast) // 4096):
        ballast[i * 4096] = 1
    after = {sample.name: sample.value for sample in of_process()}
    assert (after["process_resident_memory_bytes"] - before["process_resident_memory_bytes"]) >> 20 in range(48, 96)
    assert after["process_cpu_seconds_total"] > before["process_cpu_seconds_total"] > 0
