"""A real ClickHouse server: Debian's, of 2018, on loopback ports, with a directory and a configuration of its own.

It knows no DateTime64, no Bool, no codecs, no deduplication and no EXPLAIN. So it has tables of the same columns in types that it knows, and shows
the connection: what is said, and what happens when it breaks. The modern types are shown by chDB (test_blocks.py).
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

from infrasight.schema import KINDS, Kind, Type
from infrasight.schema.ddl import DATABASE, MARK, MARK_GIVEN, STORED, TYPES, quoted, stored_name
from infrasight.store import Retention
from infrasight.store.gate import FORMATS_STREAMED
from infrasight.store.session import Rows, Session
from infrasight.store.settings import SERVER_QUERY
from tests.ports import free_port

PROGRAM = "/usr/sbin/clickhouse-server"
PASSWORD = "the-pass'word \\ of writer"
OLDER_TYPES = {Type.TIME: "Int64", Type.BOOL: "UInt8", Type.LINEAGE: TYPES[Type.NAME]}
_CONFIG = """<yandex>
    <logger><level>error</level><console>1</console></logger>
    <listen_host>127.0.0.1</listen_host>
    <tcp_port>{native}</tcp_port><http_port>{http}</http_port><tcp_port_secure>{native_secure}</tcp_port_secure><https_port>{http_secure}</https_port>
    <openSSL><server>
        <certificateFile>{directory}/certificate.pem</certificateFile><privateKeyFile>{directory}/key.pem</privateKeyFile>
        <verificationMode>none</verificationMode>
    </server></openSSL>
    <path>{directory}/data/</path><tmp_path>{directory}/tmp/</tmp_path><users_config>{directory}/users.xml</users_config>
    <default_profile>default</default_profile><default_database>default</default_database><mark_cache_size>16777216</mark_cache_size>
</yandex>
"""
_USERS = """<yandex>
    <profiles><default><allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type></default></profiles>
    <quotas><default/></quotas>
    <users>
        <default><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></default>
        <writer><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></writer>
        <asker><password>asker's</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota></asker>
    </users>
</yandex>
"""


class ClickHouse:
    """One server. Its ports stay the same when it is started again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.native, self.http, self.native_secure, self.http_secure = (free_port() for _ in range(4))
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        for name in ("data", "tmp"):
            (directory / name).mkdir()
        ports = {"native": self.native, "http": self.http, "native_secure": self.native_secure, "http_secure": self.http_secure}
        (directory / "config.xml").write_text(_CONFIG.format(directory=directory, **ports))
        (directory / "users.xml").write_text(_USERS.format(password=PASSWORD))
        (directory / "password").write_text(PASSWORD + "\n")
        self.certificate = directory / "certificate.pem"
        names = "subjectAltName=IP:127.0.0.1"
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=test"]
        subprocess.run([*make, "-addext", names, "-keyout", directory / "key.pem", "-out", self.certificate], check=True, capture_output=True)

    def url(self, **parameters: str | int) -> str:
        """Where it is, as the user `writer`."""
        return self._url(self.native, {"http_port": self.http, "password_file": self.directory / "password"} | parameters)

    def secure_url(self, **parameters: str | int) -> str:
        """The same, over TLS."""
        given = {"secure": 1, "http_port": self.http_secure, "password_file": self.directory / "password"}
        return self._url(self.native_secure, given | parameters)

    @staticmethod
    def _url(port: int, parameters: dict[str, object]) -> str:
        return f"clickhouse://writer@127.0.0.1:{port}/?" + "&".join(f"{name}={value}" for name, value in parameters.items())

    def start(self) -> None:
        """Returns when it answers."""
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, f"--config-file={self.directory}/config.xml"], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        for port in (self.native, self.http, self.native_secure, self.http_secure):
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert self._process.poll() is None, (self.directory / "log").read_text()[-2000:]
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9. Legal twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def older_migrate(server: Rows, retention: Retention, cluster: str) -> list[str]:
    """In place of the store's own."""
    return older_tables(server)


def older_tables(server: Rows, kinds: tuple[str, ...] = tuple(KINDS)) -> list[str]:
    """Create the tables of `kinds` as it can have them."""
    for statement in (f"CREATE DATABASE IF NOT EXISTS {DATABASE}", *(_ddl(KINDS[kind]) for kind in kinds)):
        server.execute(statement)
    return []


class OlderGate:
    """The server of the tests has no EXPLAIN: what a query may be is shown with chDB (test_gate.py)."""

    def __init__(self, session: Session) -> None:
        session.rows("SELECT name FROM system.functions")

    def check(self, session: Session, sql: str, format: str) -> bool:
        return format in FORMATS_STREAMED


async def _nothing(*_: object) -> None:
    """In place of what asks for times that it does not have."""


OLDER: dict[str, object] = {
    "infrasight.store.server.OLDEST": (18, 16),
    "infrasight.store.server.SERVER_INSERT": {"min_insert_block_size_rows": "1000000000"},
    "infrasight.store.server.SERVER_HEALER": {"max_query_size": "16777216"},
    "infrasight.store.server.migrate": older_migrate,
    "infrasight.store.threads.Rolling": lambda session, shared: None,
    "infrasight.store.joining._TIME": "toInt64({})",
    "infrasight.store.joining._DAY": "toUInt32(toDate(toDateTime(intDiv(ts, 1000000000), 'UTC'), 'UTC'))",
    "infrasight.store.healing._IN_PARTITION": "",
    "infrasight.store.healing._REASON": "''",
    "infrasight.server.healer.Healer._look_into_the_store": _nothing,
    "infrasight.store.http.SERVER_QUERY": {name: value for name, value in SERVER_QUERY.items() if not name.startswith(("cancel_", "allow_"))},
    "infrasight.store.threads.Gate": OlderGate,
}
"""What has to be put in the place of ours, by name, to work with it."""


def _ddl(kind: Kind) -> str:
    columns = ", ".join(f"{quoted(stored_name(column))} {OLDER_TYPES.get(column.type, TYPES[column.type])}" for column in kind.columns)
    columns += f", {MARK_GIVEN} UInt64, {MARK} UInt64 MATERIALIZED {MARK_GIVEN}, {STORED} DateTime('UTC')"
    day = "toDate(toDateTime(intDiv(ts, 1000000000), 'UTC'), 'UTC')"
    return f"CREATE TABLE IF NOT EXISTS {DATABASE}.{quoted(kind.name)} ({columns}) ENGINE = MergeTree PARTITION BY {day} ORDER BY (node, ts)"
