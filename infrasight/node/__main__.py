"""`python -m infrasight.node`."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

import uvloop

from infrasight.actors import RestartPolicy, Supervisor, on_stop_signals, take_precedence
from infrasight.errors import ActorFailed, InfraSightError
from infrasight.kernel import Tracing, trace
from infrasight.metrics import serve
from infrasight.node.graph import Node, build
from infrasight.node.measures import samples
from infrasight.node.memory import forget_start_up, frugal_allocation
from infrasight.node.policy.file import policy_for
from infrasight.node.policy.policy import Policy
from infrasight.node.redaction.redactor import Redactor
from infrasight.node.rehearsal import rehearse
from infrasight.node.settings import Settings
from infrasight.schema import PROBES
from infrasight.schema.arrow import without_pandas
from infrasight.settings import parse

log = logging.getLogger("infrasight.node")


async def run(settings: Settings) -> int:
    """Trace until SIGINT or SIGTERM, or until nobody takes the output any more; the exit status."""
    policy = policy_for(settings.config, settings.traced)
    forget_start_up()  # before the rings are mapped, so that the two are never there together
    with await trace(policy.probes, self_pid=os.getpid(), family_pid=settings.family_pid, rules=policy.rules) as tracing:
        for probe, reason in tracing.failed.items():
            log.warning("probe %s is not complete: %s", probe, reason)
        node = build(tracing, settings)
        node.enricher.redactor.follow(policy.redaction)
        supervisor = Supervisor(node.graph, RestartPolicy())
        stopped = _stop_on_signals(supervisor, settings.drain_timeout_s)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload, tracing, settings, node.enricher.redactor)
        async with serve(settings.prometheus_port, lambda: samples(node, supervisor.crashes)):
            forget_start_up()
            rehearse()
            forget_start_up()
            take_precedence(settings.nice)
            log.warning("infrasight node ready (%d): %s as %s, %s", os.getpid(), _what(policy), settings.node, _destination(settings))
            await supervisor.run()
        return _report(node, not stopped.done() or stopped.result())


def reload(tracing: Tracing, settings: Settings, redactor: Redactor) -> None:
    """Read the configuration again and follow it from now on. One that is wrong, or cannot be followed, leaves things as they are."""
    if settings.config is None:
        log.warning("infrasight node: no configuration to read again: started without --config")
        return
    try:
        policy = policy_for(settings.config, settings.traced)
        tracing.apply(policy.probes, policy.rules)
    except InfraSightError as error:
        log.error("infrasight node: the configuration stays as it was: %s", error)
        return
    redactor.follow(policy.redaction)
    log.warning("infrasight node: configuration read again: %s", _what(policy))


def _what(policy: Policy) -> str:
    probes = "all probes" if len(policy.probes) == len(PROBES) else ", ".join(policy.probes)
    return probes if policy.redaction.enabled else f"{probes}, nothing masked"


def _destination(settings: Settings) -> str:
    return "to " + " or ".join(f"{host}:{port}" for host, port in settings.servers) if settings.output == "server" else f"output {settings.output}"


def _stop_on_signals(supervisor: Supervisor, grace_s: float) -> asyncio.Future[bool]:
    """The first signal drains, the second ends at once. The future tells whether it drained in time."""
    loop = asyncio.get_running_loop()
    stopped: asyncio.Future[bool] = loop.create_future()
    stops: set[asyncio.Task[None]] = set()

    async def stop(within_s: float) -> None:
        drained = await supervisor.stop(within_s)
        if not stopped.done():
            stopped.set_result(drained)

    def begin(within_s: float) -> None:
        stops.add(loop.create_task(stop(within_s), name="node.stop"))

    on_stop_signals(lambda: begin(grace_s), lambda: begin(0.0))
    return stopped


def _report(node: Node, drained: bool) -> int:
    if node.exporter is None:
        return 0 if drained else 1
    spool = node.exporter.spool
    if kept := spool.rows():
        log.warning("kept for the next start: %s", _amounts(kept))
    if lost := spool.unsafe_rows():
        log.error("not stored before the end: %s", _amounts(lost))
    spool.close()
    return 0 if node.exporter.drained and not lost else 1


def _amounts(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in rows.items())


def _quiet_stdout() -> None:
    """The reader of our output may have gone: what Python would still write at exit then goes nowhere."""
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - lives to the end of the process


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node; the exit status."""
    settings = parse(Settings, argv, prog="python -m infrasight.node", description="Trace this machine and ship what is seen.")
    frugal_allocation()
    without_pandas()
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(settings))
    except ActorFailed as error:
        log.error("infrasight node: %s", error.cause)
    except InfraSightError as error:
        log.error("infrasight node: %s", error)
    except BrokenPipeError:
        _quiet_stdout()
    return 1


if __name__ == "__main__":
    sys.exit(main())
