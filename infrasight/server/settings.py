"""What can be set about a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from infrasight.schema.retention import MAX_DAYS
from infrasight.settings import option
from infrasight.store import Keep
from infrasight.wire.limits import Limits


@dataclass(frozen=True)
class Settings:
    """A server's settings: flags, environment variables, defaults."""

    server_addr: str = option("127.0.0.1", env="SERVER_ADDR", help="address to listen on")
    server_port: int = option(50051, env="SERVER_PORT", minimum=0, maximum=65535, help="port to listen on, 0 for any free one")
    tls_cert: Path | None = option(None, help="speak TLS with this certificate (PEM, with those between it and its authority), read again on change")
    tls_key: Path | None = option(None, help="its key (PEM), unless that is in the same file")
    tls_client_ca: Path | None = option(
        None, help="clients need a certificate of these authorities (PEM, lists of revoked ones may follow), or a token where there are --tokens"
    )
    tokens: Path | None = option(None, help="file of hashed tokens, one of which clients need (docs/SECURITY.md); read again when it changes")
    insecure_listen: bool = option(False, help="allow an address that other machines can reach although nothing is encrypted or anybody may ask")
    port_file: Path | None = option(None, help="file to write the port to once listening")
    store: str = option(
        "chdb:////var/lib/infrasight",
        env="INFRASIGHT_STORE",
        help="where events are kept: chdb:///absolute/directory, or clickhouse://user@host:port/?password_file=FILE (docs/STORE.md)",
    )
    keep_days: int | None = option(
        None, minimum=0, maximum=MAX_DAYS, unit="days", help="how long rows are kept, 0 for ever; else as before, 30 at first; rollups longer"
    )
    keep: tuple[Keep, ...] = option((), help="how long the rows of one table are kept, e.g. open=7,execve=90; may be repeated")
    prometheus_port: int = option(9091, env="PROMETHEUS_PORT", minimum=0, maximum=65535, help="port of the metrics on loopback, 0 for none")
    max_connections: int = option(4096, minimum=1, help="connections at a time; another is closed at once")
    max_connections_per_address: int = option(1024, minimum=1, help="of them from one address, behind which may be many nodes")
    first_call_s: float = option(10.0, unit="s", minimum=0.1, help="how long a client may take to say what it wants")
    message_s: float = option(60.0, unit="s", minimum=0.1, help="how long a message that has begun may take, and a client to read its answer")
    idle_s: float = option(300.0, unit="s", minimum=0.1, help="how long a connection without a call is kept")
    connection_age_s: float = option(
        0.0, unit="s", minimum=0, help="how old a connection may become, give or take a tenth, before its client has to make another; 0 for no limit"
    )
    received_bytes: int = option(256 << 20, unit="bytes", minimum=1 << 20, help="messages that are not whole, or not read yet, on all connections")
    drain_timeout_s: float = option(10.0, unit="s", minimum=0, help="how long a stopping server may take to store what it has accepted")
    decoding_bytes: int = option(64 << 20, unit="bytes", minimum=1, help="events being decoded at a time, beside those that wait")
    ingest_bytes: int = option(64 << 20, unit="bytes", minimum=1, help="events waiting to be stored before nodes are made to wait")
    store_patience_s: float = option(
        30.0, unit="s", minimum=0, help="how long nodes wait for a store that fails, before what they send is handed back to them, for their disks"
    )
    nice: int | None = option(None, minimum=-20, maximum=19, help="precedence over other processes, as for nice(1); by default as it was started")
    log_level: str = option("info", choices=("debug", "info", "warning", "error"), help="least severe log lines to show")

    def limits(self) -> Limits:
        """What one client may cost."""
        return Limits(
            connections=self.max_connections,
            connections_per_peer=self.max_connections_per_address,
            first_call_s=self.first_call_s,
            message_s=self.message_s,
            idle_s=self.idle_s,
            age_s=self.connection_age_s,
            received_bytes=self.received_bytes,
        )
