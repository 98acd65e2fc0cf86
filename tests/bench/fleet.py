"""A fleet of simulated nodes on one server: each a gRPC connection of its own that sends 200 events a second, in four kinds, a batch every 2 s.

Server and fleet have the two cores together. All that was sent has to be stored, each batch once.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import infrasight, processes
from tests.bench.figures import Figures
from tests.bench.plan import Plan
from tests.bench.tracers import TracerFailed

NAME = "fleet"
NODES, SECONDS = 1000, 60
START_S = 60.0


def measure(plan: Plan, figures: Figures) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        for _ in plan.rounds():
            with tempfile.TemporaryDirectory() as directory:
                _round(Path(directory), figures)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _round(directory: Path, figures: Figures, nodes: int = NODES, seconds: float = SECONDS) -> None:
    port = infrasight.free_port()
    command = [sys.executable, "-m", "infrasight.server", f"--server-port={port}", f"--port-file={directory}/port", "--prometheus-port=0"]
    options = [f"--store=chdb://{directory}/data", f"--max-connections-per-address={nodes + 10}"]
    with (directory / "log").open("wb") as log, subprocess.Popen([*command, *options], stderr=log) as server:
        try:
            if not processes.wait_until((directory / "port").exists, START_S):
                raise TracerFailed(f"fleet: {(directory / 'log').read_text()[-300:]}")
            shipping = [sys.executable, "-m", "tests.server.fleet", "--port", str(port), "--nodes", str(nodes), "--seconds", str(seconds)]
            done = subprocess.run(shipping, capture_output=True, check=False, text=True)
            if done.returncode:
                raise TracerFailed(f"fleet: {done.stderr[-300:]}")
            told, peak_mib = json.loads(done.stdout), processes.memory(server.pid).peak_mib  # what is asked below takes more
            if told["refused"]:
                raise TracerFailed(f"fleet: refused: {told['refused']}")
            for kind, rows in told["by_kind"].items():
                sent, found = f"{rows},{told['batches_by_kind'][kind]}", _ask(port, f"SELECT count(), uniqExact(batch) FROM {kind}")
                if found != sent:
                    raise TracerFailed(f"fleet: {sent} rows and batches of {kind} were sent, {found} are stored")
            subject = f"{nodes} nodes"
            figures.add("acknowledged after, median", subject, told["ack_p50_s"] * 1e3, "ms")
            figures.add("acknowledged after, 99 %", subject, told["ack_p99_s"] * 1e3, "ms")
            figures.add("connections made", subject, told["connections"], "")
            figures.add("rows stored", subject, told["rows"] / told["took_s"], "rows/s")
            figures.add("CPU of the server", subject, processes.cpu_s(server.pid) / told["took_s"] * 100, "% of a core")
            figures.add("memory of the server, peak", subject, peak_mib, "MiB")
        finally:
            server.terminate()


def _ask(port: int, sql: str) -> str:
    """The one row of an answer, as CSV."""
    command = [str(infrasight.COMMAND), "query", "--server-port", str(port), "-o", "csv", sql]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()[-1]
