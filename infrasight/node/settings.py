"""The node's settings."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import SettingsError
from infrasight.node.delivery.limits import SpoolLimits
from infrasight.runtimes import USUAL, Place
from infrasight.schema import PROBES
from infrasight.settings import option
from infrasight.trust import Cluster, Trust

OUTPUTS = ("server", "compact", "json", "none")
SPOOL_DIR = Path("/var/lib/infrasight/spool")
TRACERS = {"syscallfreq": "syscall_freq"}
"""Probes that the original's agent has under another name."""
_ADDRESS = re.compile(r"(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


def _server(text: str, port: int) -> tuple[str, int]:
    """Host and port of `host`, `host:port`, `[v6]:port` or a bare IPv6 address."""
    match = _ADDRESS.fullmatch(text)
    if match is None:
        with contextlib.suppress(ValueError):
            return str(ipaddress.IPv6Address(text)), port
        raise SettingsError(f"--server-addr: {text!r} is no address of a server such as a, a:50052 or [::1]:50052")
    if match["port"] and not 1 <= int(match["port"]) <= 65535:
        raise SettingsError(f"--server-addr: {text!r} has no port between 1 and 65535")
    return match["v6"] or match["host"], int(match["port"] or port)


def _writable(directory: Path) -> bool:
    """Whether the directory can be written to, or made."""
    there = next(each for each in (directory, *directory.parents) if each.exists())
    return os.access(there, os.W_OK | os.X_OK)


@dataclass(frozen=True)
class Settings(Cluster, Trust):
    """What to trace and where it goes."""

    probes: tuple[str, ...] = option(
        (),
        env="TRACER",
        flags=("--probes", "--tracer"),
        choices=(*PROBES, *TRACERS),
        help="what to trace, a comma list (process life is always traced); unless given as the configuration file says, or everything",
    )
    config: Path | None = option(None, help="configuration file with filters, read again on SIGHUP (docs/FILTERS.md)")
    output: str = option(
        "server", flags=("-o", "--output"), choices=OUTPUTS, help="where events go: to the server, as lines to standard output, or nowhere"
    )
    server_addr: tuple[str, ...] = option(
        ("127.0.0.1",),
        env="SERVER_ADDR",
        help="address of the server, or a comma list of several that are tried in turn; each may have a port, as in a:50052",
    )
    server_port: int = option(50051, env="SERVER_PORT", minimum=1, maximum=65535, help="port of a server for which no other is given")
    insecure: bool = option(False, help="allow a server on another machine although nothing is encrypted")
    prometheus_port: int = option(9090, env="PROMETHEUS_PORT", minimum=0, maximum=65535, help="port for metrics on loopback (0: none)")
    family_pid: int = option(0, env="INFRASIGHT_FAMILY", minimum=0, help="a process that is not traced, nor are its direct children (0: none)")
    interval_s: float = option(10.0, minimum=0.1, maximum=3600, unit="s", help="how often resource use and system call counts are told")
    runtimes: tuple[str, ...] = option(
        (),
        help="container runtimes to ask, a comma list such as docker:/run/docker.sock (containerd, cri or docker, which podman speaks), users for "
        "all of users' own, or none; unless given those at the usual places, and users'",
    )
    nice: int = option(-10, minimum=-20, maximum=19, help="precedence of the node over other processes: what it does not read in time is lost")
    batch_age_s: float = option(0.2, minimum=0.001, maximum=60, unit="s", help="wait for others to be stored with; ten times that when much happens")
    reverse_dns: bool = option(True, help="ask name servers what addresses are called that nobody was seen to ask for by name")
    reverse_dns_private: bool = option(False, help="ask that about addresses that are not of the public Internet too")
    reach_within_s: float = option(
        20.0, minimum=0, unit="s", help="without a spool, give up when no server was ever reached for so long after the start"
    )
    drain_timeout_s: float = option(10.0, minimum=0, unit="s", help="how long the end waits for what was seen to be stored")
    spool_dir: str = option(
        str(SPOOL_DIR), help="directory for what is not stored yet (docs/RELIABILITY.md), or none; unless given only if it can be written to"
    )
    spool_bytes: int = option(1 << 30, minimum=1 << 20, unit="bytes", help="what the spool may take; what is worth least is given up first")
    spool_age_s: float = option(7 * 86400.0, minimum=1, unit="s", help="how old what is not stored may get")
    spool_fsync_s: float = option(1.0, minimum=0.01, maximum=3600, unit="s", help="what came within this time may be lost when the machine crashes")

    @property
    def traced(self) -> tuple[str, ...]:
        """`probes`, by our names."""
        return tuple(TRACERS.get(probe, probe) for probe in self.probes)

    @property
    def places(self) -> tuple[Place, ...]:
        """Of the runtimes to ask. SettingsError when one is not understood."""
        named = tuple(word for word in self.runtimes if word != "users")
        try:
            return tuple(map(Place, named)) if named not in ((), ("none",)) else () if self.runtimes else USUAL
        except ValueError as error:
            raise SettingsError(f"--runtimes: {error}") from None

    @property
    def of_users(self) -> bool:
        """Whether to ask the runtimes of users' own, too."""
        return not self.runtimes or "users" in self.runtimes

    @property
    def servers(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports. SettingsError when one is not understood."""
        return tuple(_server(each, self.server_port) for each in self.server_addr)

    @property
    def spool(self) -> Path | None:
        """The spool's directory, if there is to be one."""
        if self.spool_dir in ("", "none"):
            return None
        return Path(self.spool_dir) if self.spool_dir != str(SPOOL_DIR) or _writable(SPOOL_DIR) else None

    @property
    def spool_limits(self) -> SpoolLimits:
        """What the spool may take."""
        return SpoolLimits(self.spool_bytes, self.spool_age_s, self.spool_fsync_s)
