"""The node's settings."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import SettingsError
from infrasight.runtimes import USUAL, Place
from infrasight.schema import PROBES
from infrasight.settings import option

OUTPUTS = ("server", "compact", "json", "none")


@dataclass(frozen=True)
class Settings:
    """What to trace and where it goes."""

    probes: tuple[str, ...] = option(
        (),
        env="TRACER",
        flags=("--probes", "--tracer"),
        choices=PROBES,
        help="what to trace, a comma list (process life is always traced); unless given as the configuration file says, or everything",
    )
    config: Path | None = option(None, help="configuration file with filters, read again on SIGHUP (docs/FILTERS.md)")
    output: str = option(
        "server", flags=("-o", "--output"), choices=OUTPUTS, help="where events go: to the server, as lines to standard output, or nowhere"
    )
    server_addr: str = option("127.0.0.1", env="SERVER_ADDR", help="address of the server")
    server_port: int = option(50051, env="SERVER_PORT", minimum=1, maximum=65535, help="port of the server")
    insecure: bool = option(False, help="allow a server on another machine although nothing is encrypted yet")
    node_name: str = option("", env="NODE_NAME", help="name of this node (the host's name, when empty)")
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
    reach_within_s: float = option(20.0, minimum=0, unit="s", help="give up when the server was never reached for so long after the start")
    drain_timeout_s: float = option(10.0, minimum=0, unit="s", help="how long the end waits for what was seen to be stored")

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
    def node(self) -> str:
        """The node's name."""
        return self.node_name or os.uname().nodename
