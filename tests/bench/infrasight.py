"""InfraSight's own commands, in one place: the node alone as a tracer, and node and server together as an installation."""

import json
import os
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.bench import processes
from tests.bench.loads import Load
from tests.bench.tracers import ROOT, Counts, Running, Tracer, TracerFailed

PYTHON = ROOT / ".venv" / "bin" / "python"
COMMAND = ROOT / ".venv" / "bin" / "infrasight"
EVENTS = "infrasight_probe_events_total"
LOSSES = "infrasight_probe_lost_total"
INCOMPLETE = "is not complete"
START_S = 60.0
QUERY_S = 60.0


def free_port() -> int:
    """A TCP port of the loopback that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Node(Tracer):
    """The node without a server: reads, enriches, batches, encodes, and throws away."""

    name = "infrasight"

    def __init__(self, probes: str | None = "open") -> None:
        """`probes` as the command takes them; all there are when None."""
        self._probes = probes
        self._port = 0
        self._before = self._after = Counts(0, 0)

    def missing(self) -> str | None:
        return None if PYTHON.exists() else "no virtual environment (make setup)"

    def command(self, sink: Path) -> list[str]:
        self._port = free_port()
        probes = ["--probes", self._probes] if self._probes else []
        return [str(PYTHON), "-m", "infrasight.node", "--output", "none", *probes, "--prometheus-port", str(self._port)]

    def is_ready(self, running: Running) -> bool:
        return any("ready" in line for line in running.errors.read_text(errors="replace").splitlines())

    def attached(self, running: Running) -> None:
        """With a part of its probes it would seem to cost less."""
        if lacking := [line for line in running.errors.read_text(errors="replace").splitlines() if INCOMPLETE in line]:
            raise TracerFailed(f"{self.name}: {lacking[0][:200]}")
        self._before = self._read()

    def ending(self, running: Running) -> None:
        self._after = self._read()

    def counts(self, running: Running, load: Load) -> Counts:
        """Events of others are in it too; so `seen` may be more than the load made."""
        return self.counted()

    def counted(self) -> Counts:
        """What all its probes saw and lost while it was attached; asked after it has ended."""
        return Counts(self._after.seen - self._before.seen, self._after.lost - self._before.lost)

    def _read(self) -> Counts:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=5) as answer:
                return counts_of(self._probes, answer.read().decode())
        except OSError as e:
            raise TracerFailed(f"{self.name}: no metrics: {e}") from e


def counts_of(probe: str | None, exposition: str) -> Counts:
    """What the metrics page says of one probe; of all, when None."""
    totals = {EVENTS: 0.0, LOSSES: 0.0}
    for metric in text_string_to_metric_families(exposition):
        for sample in metric.samples:
            if sample.name in totals and probe in (None, sample.labels.get("probe")):
                totals[sample.name] += sample.value
    return Counts(int(totals[EVENTS]), int(totals[LOSSES]))


class Installation:
    """Node and server as `infrasight up` runs them, asked through `infrasight query`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.port = port

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of an answer. Raises TracerFailed when there is none."""
        command = [str(COMMAND), "query", sql, "-o", "json", "--server-port", str(self.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_S, check=False)
        if done.returncode:
            raise TracerFailed(f"infrasight query: exit {done.returncode}: {done.stderr.strip()[-400:]}")
        return rows_of(done.stdout)

    def answers(self) -> bool:
        if self._process.poll() is not None:
            raise TracerFailed(f"infrasight up ended with {self._process.returncode}")
        try:
            return bool(self.query("SELECT 1 AS one"))
        except (TracerFailed, subprocess.TimeoutExpired):
            return False

    def memory(self) -> processes.Memory:
        return processes.memory(self._process.pid)

    def cpu_s(self) -> float:
        return processes.cpu_s(self._process.pid)


class Up:
    """Node, server and their display, as a tracer."""

    name = "infrasight up"

    @contextmanager
    def attach(self) -> Iterator[Installation]:
        """A fresh installation that has settled. Raises TracerFailed."""
        with installed() as installation:
            yield installation


def rows_of(answer: str) -> list[dict[str, Any]]:
    """An answer as JSON: one list of objects, or one object a line."""
    if answer.lstrip().startswith("["):
        rows: list[dict[str, Any]] = json.loads(answer)
        return rows
    return [json.loads(line) for line in answer.splitlines() if line.strip()]


@contextmanager
def installed() -> Iterator[Installation]:
    """A fresh installation with an empty store; ended and removed afterwards. Raises TracerFailed."""
    if not COMMAND.exists():
        raise TracerFailed("infrasight: no virtual environment (make setup)")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        port, log = free_port(), Path(folder) / "log"
        command = [str(COMMAND), "up", "--data-dir", f"{folder}/data", "--server-port", str(port)]
        environment = {**os.environ, "PROMETHEUS_PORT": str(free_port())}
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=output, env=environment)
        installation = Installation(process, port)
        try:
            if not processes.wait_until(lambda: b"node ready" in log.read_bytes() and installation.answers(), START_S, every_s=0.5):
                raise TracerFailed(f"infrasight up: no answer in {START_S:.0f} s: {log.read_text(errors='replace')[-400:]}")
            yield installation
        finally:
            processes.stop(process)
