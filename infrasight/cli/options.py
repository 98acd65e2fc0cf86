"""What each command can be told. Nothing here imports more than settings do, so that help and mistakes are answered at once."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from infrasight.settings import option
from infrasight.trust import Cluster, Trust

_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Span(float):
    """Seconds, written `90`, `90s`, `5m`, `2h` or `7d`."""

    def __new__(cls, text: str) -> Span:
        """ValueError for anything else."""
        match = _SPAN.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no span of time such as 90s, 5m, 2h or 7d")
        return super().__new__(cls, float(match[1]) * _SECONDS[match[2]])


class Lines(enum.Enum):
    """How events are shown."""

    COMPACT = "compact"
    JSON = "json"


class Show(enum.Enum):
    """How `up` shows events."""

    COMPACT = "compact"
    JSON = "json"
    NONE = "none"


class Table(enum.Enum):
    """How the answer to a query is shown."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class Address:
    """Where the server is."""

    server_addr: str = option("127.0.0.1", env="SERVER_ADDR", help="address of the server")
    server_port: int = option(50051, env="SERVER_PORT", minimum=1, maximum=65535, help="port of the server")
    insecure: bool = option(False, help="allow a server on another machine although nothing is encrypted")


@dataclass(frozen=True)
class Reach(Trust, Address):
    """Where the server is, and how it is talked to."""


@dataclass(frozen=True)
class UpOptions:
    """`infrasight up`."""

    data_dir: Path | None = option(
        None, help="where events are kept; unless given /var/lib/infrasight for root, else infrasight in the user's data directory"
    )
    for_s: Span | None = option(None, env=None, flags=("--for",), help="end by itself after this time, e.g. 90s or 5m")
    probes: tuple[str, ...] = option((), env="TRACER", help="what to trace, a comma list; all probes unless given")
    config: Path | None = option(None, help="configuration file of the node, with filters (docs/FILTERS.md)")
    interval_s: float = option(10.0, minimum=0.1, maximum=3600, unit="s", help="how often resource use and system call counts are told")
    keep_days: int | None = option(
        None, minimum=0, maximum=36_500, unit="days", help="how long rows are kept, 0 for ever; else as before, 30 at first; rollups longer"
    )
    keep: tuple[str, ...] = option((), help="how long the rows of one table are kept, e.g. open=7,execve=90; may be repeated")
    server_port: int = option(50051, env="SERVER_PORT", minimum=0, maximum=65535, help="port that the server listens on; 0 is any free one")
    prometheus_port: int = option(9090, env="PROMETHEUS_PORT", minimum=0, maximum=65535, help="port of the node's metrics on loopback, 0 for none")
    server_prometheus_port: int = option(9091, minimum=0, maximum=65535, help="port of the server's metrics on loopback, 0 for none")
    output: Show = option(Show.COMPACT, env=None, flags=("-o", "--output"), help="how events are shown")
    trunc: bool = option(True, env=None, help="cut lines that are wider than the terminal")
    quiet: bool = option(False, env=None, help="do not show the log lines of node and server")


@dataclass(frozen=True)
class EventsOptions(Reach):
    """`infrasight events`."""

    follow: bool = option(False, env=None, flags=("-f", "--follow"), help="show events as they happen, until Ctrl-C")
    type: tuple[str, ...] = option((), env=None, help="only events of this kind; may be repeated; else all events, without resource and syscall_freq")
    comm: tuple[str, ...] = option((), env=None, comma=False, help="only events of threads of this name; may be repeated")
    user: tuple[str, ...] = option((), env=None, comma=False, help="only events of this user; may be repeated")
    pid: tuple[int, ...] = option((), env=None, minimum=0, maximum=2**32 - 1, help="only events of this process id; may be repeated")
    path: tuple[str, ...] = option(
        (), env=None, comma=False, help="only events with a path that begins with this, as given or where it leads; may be repeated"
    )
    container: tuple[str, ...] = option(
        (), env=None, help="only events in a container whose id begins with this, or that is called this; may be repeated"
    )
    image: tuple[str, ...] = option((), env=None, help="only events in a container whose image has this in its name; may be repeated")
    pod: tuple[str, ...] = option((), env=None, help="only events in a Kubernetes pod whose name begins with this; may be repeated")
    ancestor: tuple[str, ...] = option((), env=None, comma=False, help="only events of processes with an ancestor of this name; may be repeated")
    last: int | None = option(None, env=None, flags=("-n", "--last"), minimum=1, maximum=100_000, help="how many stored events; 20 unless given")
    since: Span | None = option(None, env=None, help="only events younger than this, e.g. 90s or 5m")
    output: Lines = option(Lines.COMPACT, env=None, flags=("-o", "--output"), help="how events are shown")
    color: bool = option(True, env=None, help="colour, when the output is a terminal")
    trunc: bool = option(True, env=None, help="cut lines that are wider than the terminal")


@dataclass(frozen=True)
class QueryOptions(Reach):
    """`infrasight query`."""

    sql: str = option("", env=None, flags=("sql",), help='one read-only SQL statement, or "-" to read it from the standard input')
    output: Table = option(Table.TABLE, env=None, flags=("-o", "--output"), help="how the answer is shown")
    data_dir: Path | None = option(None, env=None, help="ask this data directory, while no server runs on it")


@dataclass(frozen=True)
class SchemaOptions:
    """`infrasight schema`."""

    cluster: str = option("", env=None, help="name of the cluster that the tables are spread over; unless given, they are for one server")
    keep_days: int = option(30, minimum=0, maximum=36_500, unit="days", help="how long rows are kept, 0 for ever; alerts and rollups longer")
    keep: tuple[str, ...] = option((), help="how long the rows of one table are kept, e.g. open=7,execve=90; may be repeated")


@dataclass(frozen=True)
class DoctorOptions(Cluster, Reach):
    """`infrasight doctor`."""

    json: bool = option(False, env=None, help="one JSON object per check")
    data_dir: Path | None = option(None, help="the data directory to check; unless given as for up")


class Person(enum.Enum):
    """What a person may do."""

    READER = "reader"
    ADMIN = "admin"


class Holder(enum.Enum):
    """Who holds a token."""

    NODE = "node"
    READER = "reader"
    ADMIN = "admin"


@dataclass(frozen=True)
class CertsOptions:
    """`infrasight certs`."""

    dir: Path = option(Path("certs"), env="INFRASIGHT_CERTS", help="directory of the authority, its certificates and the tokens")


@dataclass(frozen=True)
class CertsInitOptions(CertsOptions):
    """`infrasight certs init`."""

    days: int = option(3650, env=None, minimum=1, maximum=36500, unit="days", help="how long the authority lasts")


@dataclass(frozen=True)
class CertsServerOptions(CertsOptions):
    """`infrasight certs server`."""

    hosts: tuple[str, ...] = option((), env=None, flags=("hosts",), help="names and addresses that the server is reached under, a comma list")
    days: int = option(365, env=None, minimum=1, maximum=36500, unit="days", help="how long the certificate lasts")


@dataclass(frozen=True)
class CertsNodeOptions(CertsOptions):
    """`infrasight certs node`."""

    name: str = option("", env=None, flags=("name",), help="the node's name, as its --node-name or its host has it")
    days: int = option(365, env=None, minimum=1, maximum=36500, unit="days", help="how long the certificate lasts")


@dataclass(frozen=True)
class CertsUserOptions(CertsOptions):
    """`infrasight certs user`."""

    name: str = option("", env=None, flags=("name",), help="whose it is")
    role: Person = option(Person.READER, env=None, help="what they may do: ask, or everything")
    days: int = option(90, env=None, minimum=1, maximum=36500, unit="days", help="how long the certificate lasts")


@dataclass(frozen=True)
class CertsTokenOptions(CertsOptions):
    """`infrasight certs token`."""

    name: str = option("", env=None, flags=("name",), help="whose it is; a node's name, or * for any node")
    role: Holder = option(Holder.READER, env=None, help="what they may do: ship as that node, ask, or everything")


@dataclass(frozen=True)
class CertsRenewOptions(CertsOptions):
    """`infrasight certs renew`."""

    names: tuple[str, ...] = option((), env=None, flags=("names",), help="certificates as `infrasight certs show` names them, a comma list")
    days: int | None = option(None, env=None, minimum=1, maximum=36500, unit="days", help="how long they last; unless given as long as before")


@dataclass(frozen=True)
class CertsRevokeOptions(CertsOptions):
    """`infrasight certs revoke`."""

    name: str = option("", env=None, flags=("name",), help="certificate or token as `infrasight certs show` names it")


@dataclass(frozen=True)
class CertsShowOptions(CertsOptions):
    """`infrasight certs show`."""
