"""The HTTP endpoint: `/metrics` in Prometheus's text format, `/healthz` for liveness."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from infrasight.errors import MetricsError
from infrasight.metrics.samples import Sample

Collect = Callable[[], Iterable[Sample]]


def exposition(samples: Iterable[Sample]) -> bytes:
    """The samples in Prometheus's text format."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    families: dict[str, Any] = {}
    for sample in samples:
        if sample.name not in families:
            family: Any = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}[sample.kind]
            families[sample.name] = family(sample.name, sample.help, labels=list(sample.labels))
        figures = (list(sample.buckets), sample.value) if sample.kind == "histogram" else (sample.value,)
        families[sample.name].add_metric(list(sample.labels.values()), *figures)

    class Once:
        """What the registry asks for its families."""

        def collect(self) -> Iterable[Any]:
            return families.values()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    return generate_latest(registry)


@contextlib.asynccontextmanager
async def serve(port: int, collect: Collect, host: str = "127.0.0.1") -> AsyncIterator[None]:
    """Serve what `collect` yields, on `host`, as long as the block lasts; nothing when `port` is 0. MetricsError when the port cannot be had."""
    if not port:
        yield
        return
    from aiohttp import web  # 12 MiB: only where it is wanted

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=exposition(collect()), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", health)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise MetricsError(f"metrics cannot be served on {host}:{port}: {error.strerror or error}; choose another port, or 0 for none") from error
        yield
    finally:
        await runner.cleanup()
