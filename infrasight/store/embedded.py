"""EmbeddedStore: chDB, ClickHouse inside this process."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from infrasight.schema.retention import Retention
from infrasight.store import batches
from infrasight.store.blocks import block
from infrasight.store.directory import DataDirectory
from infrasight.store.engine import Session
from infrasight.store.repair import repair
from infrasight.store.session import EngineError
from infrasight.store.session import Session as AnySession
from infrasight.store.settings import ENGINE_XML, HEALER_SESSION, SUMMING, SUMMING_SESSION, USERS_XML, WRITER_SESSION
from infrasight.store.tables import migrate
from infrasight.store.threads import ThreadedStore

log = logging.getLogger(__name__)


class EmbeddedStore(ThreadedStore):
    """One directory, one process."""

    def __init__(self, path: str, retention: Retention) -> None:
        self._directory = DataDirectory(path)
        super().__init__(str(self._directory.path), retention, shared=False)
        self._control: Session | None = None
        self._writer: Session | None = None
        self._summing_session: Session | None = None
        self._mender: Session | None = None

    def _connect(self) -> Session:
        return Session(self._directory.data, self._directory.path / "engine.xml")

    def _begin(self) -> Session:
        self._directory.take()
        self._directory.write("users.xml", USERS_XML)
        self._directory.write("engine.xml", ENGINE_XML)
        if marks := repair(self._directory.data):
            log.warning("store %s: took back %d marks of batches that a crash kept from being stored", self._name, marks)
        self._control = self._connect()
        self._control.execute("SET ROLE writer")
        for statement in migrate(self._control, self._retention):
            log.debug("store %s: %s", self._name, statement.partition("(")[0].strip())
        return self._control

    def _summer(self) -> Session:
        if self._summing_session is None:  # not the control session: another thread may be ending a query with that
            self._summing_session = self._connect()
            self._summing_session.execute(SUMMING_SESSION)
        return self._summing_session

    def _interrupt(self) -> None:
        if self._summing_session is not None:
            self._kill(self._summing_session, SUMMING)

    def _write(self, kind: str, batch: pa.RecordBatch, token: str) -> None:
        rows = block(batch, batches.stored_types(kind))
        with self._writing() as writer:
            writer.insert(lambda file: batches.file_statement(kind, token, file), rows)

    def _ask(self, sql: str) -> list[list[str]]:
        with self._writing() as writer:
            return writer.rows(sql)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        try:
            if self._writer is None:
                self._writer = self._connect()
                self._writer.execute(WRITER_SESSION)
            yield self._writer
        except EngineError:
            if self._writer is not None:
                self._writer.close()  # after an error its state is anybody's guess
                self._writer = None
            raise

    def _healer(self) -> Session:
        if self._mender is None:
            self._mender = self._connect()
            self._mender.execute(HEALER_SESSION)
        return self._mender

    def _kill(self, session: AnySession, mark: str) -> None:
        if self._control is not None:
            self._control.execute(f"KILL QUERY WHERE Settings['log_comment'] = '{mark}' ASYNC")

    def _release(self) -> None:
        for session in (self._writer, self._summing_session, self._mender, self._control):
            if session is not None:
                session.close()
        self._writer = self._summing_session = self._mender = self._control = None
        self._directory.give_back()
