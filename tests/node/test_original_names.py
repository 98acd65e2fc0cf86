"""The node by the names that the original's agent has: its metrics, its options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from infrasight.metrics.endpoint import exposition
from infrasight.node.graph import build
from infrasight.node.measures import samples
from infrasight.node.settings import Settings
from infrasight.settings import parse
from tests.metrics.test_endpoint import parsed
from tests.node.collector import Collector, listening
from tests.node.delivery.test_exporter import Bench
from tests.waiting import until


def read(arguments: Sequence[str], environ: Mapping[str, str]) -> Settings:
    return parse(Settings, arguments, environ, prog="node", description="")


async def test_dashboards_of_the_original_find_its_metrics() -> None:
    server = await listening(Collector())
    bench = Bench(server.port)
    await bench.put(1, 2)
    await until(lambda: bench.exporter.window.acknowledged == {"open": 20})
    node = build(None, Settings(output="server"))  # type: ignore[arg-type]  # wiring touches no tracing
    assert node.exporter
    node.exporter.sending = bench.exporter.sending
    node.reader.events["open"] = 7
    node.reader.lost["open", "ring_full"] = 3
    node.enricher.containers.hits, node.enricher.containers.misses = 5, 2
    found = parsed(exposition(samples(node, {})).decode())
    await bench.end()
    await server.close()

    def figure(name: str, **labels: str) -> float:
        return found[f"infrasight_{name}", frozenset(labels.items())]

    assert figure("tracer_events_total", tracer="open") == 7
    assert figure("tracer_errors_total", tracer="open", type="ring_full") == 3
    assert figure("enricher_cache_hits_total", source="container") == 5
    assert figure("enricher_cache_misses_total", source="container") == 2
    assert {labels for name, labels in found if name == "infrasight_enricher_cache_hits_total"} >= {
        frozenset({("source", source)}) for source in ("container", "cgroup", "dns")
    }
    assert figure("grpc_messages_sent_total", tracer="open", status="success") == 2
    assert figure("grpc_send_latency_seconds_count", tracer="open") == 2
    assert figure("grpc_send_latency_seconds_bucket", tracer="open", le="+Inf") == 2


def test_an_original_agent_s_command_line_and_variables_are_understood() -> None:
    settings = read(["--tracer=execve,open,syscallfreq", "--server-addr=10.0.0.1", "--server-port=8080", "--prometheus-port", "9095"], {})
    assert (settings.traced, settings.servers) == (("execve", "open", "syscall_freq"), (("10.0.0.1", 8080),))
    assert settings.prometheus_port == 9095
    environ = {"TRACER": "accept, resource", "SERVER_ADDR": "collector", "SERVER_PORT": "8080", "NODE_NAME": "CASA", "PROMETHEUS_PORT": "9095"}
    settings = read([], environ)
    assert (settings.traced, settings.servers) == (("accept", "resource"), (("collector", 8080),))
    assert (settings.node, settings.prometheus_port, read([], {}).prometheus_port) == ("CASA", 9095, 9090)
