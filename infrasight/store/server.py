"""ServerStore: a ClickHouse server, or one of several that hold the same tables."""

from __future__ import annotations

import logging
import threading

import pyarrow as pa

from infrasight.errors import StoreIncompatible
from infrasight.schema.retention import Retention
from infrasight.store import batches
from infrasight.store.addresses import Address
from infrasight.store.connection import Connection
from infrasight.store.http import Session
from infrasight.store.session import Rows
from infrasight.store.session import Session as AnySession
from infrasight.store.settings import SERVER_HEALER, SERVER_INSERT
from infrasight.store.tables import migrate
from infrasight.store.threads import ThreadedStore

log = logging.getLogger(__name__)
OLDEST = (25, 3)
"""ClickHouse, major and minor. Before it, an error after the first rows of an answer cannot be told from rows."""
CLOSE_S = 5.0
"""What an insert that is under way may take when the store is closed."""


class ServerStore(ThreadedStore):
    """Tables and inserts over the native protocol (connection.py), people's queries over HTTP (http.py)."""

    def __init__(self, address: Address, retention: Retention) -> None:
        super().__init__(str(address), retention, shared=True, cluster=address.cluster)
        self._address = address
        self._connection, self._adder, self._mender = Connection(address), Connection(address), Connection(address, SERVER_HEALER)

    def _connect(self) -> Session:
        return Session(self._address)

    def _begin(self) -> Session:
        _check_version(self._connection)
        for statement in migrate(self._connection, self._retention, self._address.cluster):
            log.info("store %s: %s", self._name, statement.partition("(")[0].strip())
        return self._connect()

    def _summer(self) -> Connection:
        return self._adder

    def _interrupt(self) -> None:
        self._adder.abort()

    def _write(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        settings = SERVER_INSERT | {"insert_deduplication_token": token}
        self._connection.insert(batches.native_statement(kind), settings, batch)

    def _ask(self, sql: str) -> list[list[str]]:
        return self._connection.rows(sql)

    def _healer(self) -> Connection:
        return self._mender

    def _kill(self, session: AnySession, mark: str) -> None:
        if isinstance(session, Session):
            session.kill()

    def _close(self) -> None:
        hurry = threading.Timer(CLOSE_S, self._abort)
        hurry.start()
        try:
            super()._close()
        finally:
            hurry.cancel()

    def _abort(self) -> None:
        self._connection.abort()
        self._mender.abort()

    def _release(self) -> None:
        for connection in (self._connection, self._adder, self._mender):
            connection.close()


def _check_version(server: Rows) -> None:
    """Raises StoreIncompatible for a server that is older than `OLDEST`."""
    ((version,),) = server.rows("SELECT version()")
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise StoreIncompatible(f"ClickHouse {version} is too old: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
