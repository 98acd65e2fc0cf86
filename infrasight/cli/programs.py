"""The two programs that `infrasight` runs as children, and how each is told what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from infrasight.cli.children import Program
from infrasight.errors import CommandLineError

LOOPBACK = "127.0.0.1"


def server(
    directory: Path,
    port_file: Path,
    *,
    environ: Mapping[str, str],
    port: int = 0,
    prometheus_port: int = 0,
    keep_days: int | None = None,
    keep: Sequence[str] = (),
    lent: Sequence[int] = (),
) -> Program:
    """A server on `directory`, on loopback. Started again it keeps the port that it first chose."""

    def arguments() -> list[str]:
        chosen = port_in(port_file) if port_file.exists() else port
        return [
            f"--store=chdb://{(directory / 'store').absolute()}",
            f"--server-addr={LOOPBACK}",
            f"--server-port={chosen}",
            f"--prometheus-port={prometheus_port}",
            f"--port-file={port_file}",
            "--log-level=info",  # that of the line that says it is ready
            *([] if keep_days is None else [f"--keep-days={keep_days}"]),
            *([f"--keep={','.join(keep)}"] if keep else []),
        ]

    return Program("server", "infrasight.server", arguments, "infrasight server ready", _among_themselves(environ), tuple(lent))


def node(
    server_port: Callable[[], int],
    *,
    environ: Mapping[str, str],
    family: int,
    prometheus_port: int,
    interval_s: float,
    probes: Sequence[str] = (),
    config: Path | None = None,
    directory: Path | None = None,
    lent: Sequence[int] = (),
) -> Program:
    """A node that ships to the server on loopback, keeps its spool below `directory`, and ignores the process `family` and its direct children."""

    def arguments() -> list[str]:
        told = ["--output=server", f"--server-addr={LOOPBACK}", f"--server-port={server_port()}"]
        told += [f"--prometheus-port={prometheus_port}", f"--interval-s={interval_s}"]
        told += [f"--spool-dir={directory.absolute() / 'spool'}"] if directory else []
        told += [f"--probes={','.join(probes)}"] if probes else []
        return told + ([f"--config={config.absolute()}"] if config else [])

    told_by_environ = _among_themselves(environ) | {"INFRASIGHT_FAMILY": str(family)}
    return Program("node", "infrasight.node", arguments, "infrasight node ready", told_by_environ, tuple(lent))


def _among_themselves(environ: Mapping[str, str]) -> dict[str, str]:
    """Without what is about TLS and tokens: that is for servers elsewhere, and these talk over loopback."""
    return {name: value for name, value in environ.items() if not name.startswith(("INFRASIGHT_TLS_", "INFRASIGHT_TOKEN"))}


def port_in(file: Path) -> int:
    """The port that a server wrote."""
    try:
        return int(file.read_text())
    except (OSError, ValueError) as error:
        raise CommandLineError(f"the server did not say which port it has: {error}") from None
