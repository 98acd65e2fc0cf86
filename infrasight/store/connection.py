"""A connection to a ClickHouse server over its native protocol. The only module that imports asynch; its errors leave as ours.

asynch knows the protocol: hello, settings, packets, compression. Its way of writing rows is value by value, though, so an insert hands it whole
columns (blocks.py) where its own would go.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import pyarrow as pa
from asynch.errors import ClickHouseException, ServerException
from asynch.proto.block import BlockInfo, RowOrientedBlock
from asynch.proto.connection import Connection as Protocol
from asynch.proto.protocol import ClientPacket
from asynch.proto.result import QueryInfo

from infrasight.errors import StoreError, StoreUnavailable
from infrasight.store.addresses import Address
from infrasight.store.blocks import Bytes, block
from infrasight.store.session import EngineError

logging.getLogger("asynch").setLevel(logging.ERROR)  # it warns of each host that it cannot reach, which we do ourselves
CONNECT_S = 5.0
ANSWER_S = 60.0
"""How long a server may be silent before it counts as gone."""
FRAME_BYTES = 1 << 20
"""Sent, and compressed, at a time."""
_PROTOCOL_ERRORS = (ClickHouseException, OSError, EOFError, RuntimeError, ValueError, LookupError, struct.error)
"""What asynch raises when the other side is gone or is no ClickHouse server."""
_T = TypeVar("_T")


class Connection:
    """Connects when it is used first, and again after any error: what failed or was cancelled is closed, never used again.

    One call at a time, each may come from another thread and blocks it. Every method raises EngineError (the server said no) and
    StoreUnavailable (no server answers); which of them, of an insert, says nothing about whether the rows are in.
    """

    def __init__(self, address: Address, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        """`settings` go with each statement but an INSERT."""
        self._address, self._settings = address, settings
        self._first = 0
        """The host that answered last, which is asked first."""
        self._protocol: Protocol | None = None
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self._task: asyncio.Task[Any] | None = None
        self._aborted = False
        self._closed = False

    def execute(self, sql: str) -> None:
        """Run a statement without a result."""
        self.rows(sql)

    def rows(self, sql: str) -> list[list[str]]:
        """The result of a query of ours whose columns are strings."""
        return self._run(self._rows(sql))

    def insert(self, sql: str, settings: Mapping[str, str], batch: pa.RecordBatch) -> None:
        """Run an INSERT, its rows those of `batch`, by name. Raises also what `blocks.block` raises."""
        self._run(self._insert(sql, settings, batch))

    def abort(self) -> None:
        """End the call that is running, from another thread. Those after it fail at once."""
        self._aborted = True
        if self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._task.cancel)

    def close(self) -> None:
        """Legal twice."""
        if not self._closed:
            self._closed = True
            self._run(self._disconnect())
            self._runner.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._runner.run(self._guarded(work))

    async def _guarded(self, work: Coroutine[Any, Any, _T]) -> _T:
        self._task = asyncio.current_task()
        try:
            return await work
        except BaseException as error:
            await self._disconnect()
            if (ours := self._ours(error)) is error:
                raise
            raise ours from error
        finally:
            self._task = None

    def _ours(self, error: BaseException) -> BaseException:
        if isinstance(error, ServerException):
            return _refusal(error)
        if isinstance(error, asyncio.CancelledError):
            return StoreUnavailable(f"{self._address}: given up before the server answered")
        if isinstance(error, StoreError) or not isinstance(error, _PROTOCOL_ERRORS):
            return error
        return StoreUnavailable(f"{self._host()}: {_said(error)}")

    def _host(self) -> str:
        host, port = self._address.hosts[self._first]
        return f"{host}:{port}"

    async def _rows(self, sql: str) -> list[list[str]]:
        protocol = await self._connected()
        await _begin(protocol, sql, self._settings)
        return [list(row) async for packet in protocol.packet_generator() for row in packet.block.get_rows()]

    async def _insert(self, sql: str, settings: Mapping[str, str], batch: pa.RecordBatch) -> None:
        protocol = await self._connected()
        await _begin(protocol, sql, settings)
        sample = await protocol.receive_sample_block()
        await _send(protocol, block(batch, sample.columns_with_types))
        await protocol.send_block(RowOrientedBlock())  # the end of the rows
        async for _ in protocol.packet_generator():
            pass

    async def _connected(self) -> Protocol:
        """Connected to the first server that answers, the last one before the others."""
        if self._aborted:
            raise asyncio.CancelledError
        if self._protocol is not None and await self._protocol.ping():
            return self._protocol
        await self._disconnect()
        failures = []
        for index in [self._first, *(each for each in range(len(self._address.hosts)) if each != self._first)]:
            host, port = self._address.hosts[index]
            protocol = self._to(host, port)
            try:
                async with asyncio.timeout(CONNECT_S):
                    await protocol.connect()
            except _PROTOCOL_ERRORS as error:
                failures.append(f"{host}:{port}: {_refusal(error) if isinstance(error, ServerException) else _said(error)}")
            else:
                self._first, self._protocol = index, protocol
                return protocol
        raise StoreUnavailable("; ".join(dict.fromkeys(failures)))

    def _to(self, host: str, port: int) -> Protocol:
        address = self._address
        return Protocol(
            user=address.writer.user,
            password=address.writer.password(),
            host=host,
            port=port,
            client_name="infrasight",
            connect_timeout=CONNECT_S,
            send_receive_timeout=ANSWER_S,
            compression=False if address.compression == "none" else address.compression,
            secure=address.secure,
            ca_certs=address.certificates(),
        )

    async def _disconnect(self) -> None:
        protocol, self._protocol = self._protocol, None
        if protocol is None or protocol.writer is None:
            return
        protocol.writer.writer.transport.abort()  # not close: that waits for what is unsent, which nobody may read
        protocol.reset_state()


async def _begin(protocol: Protocol, sql: str, settings: Mapping[str, str]) -> None:
    """What asynch's own `execute` does, less what it does after an error: that waits for a server that may be gone."""
    protocol.make_query_settings(settings)
    protocol.last_query = QueryInfo(protocol.reader)
    await protocol.send_query(sql)
    await protocol.send_external_tables(None)


async def _send(protocol: Protocol, pieces: list[Bytes]) -> None:
    """A block as asynch would send it, in frames of `FRAME_BYTES`."""
    await protocol.writer.write_varint(ClientPacket.DATA)
    await protocol.writer.write_str("")  # no external table
    writer = protocol.block_writer
    await BlockInfo().write(writer.writer)
    unsent = 0
    for piece in pieces:
        for start in range(0, len(piece), FRAME_BYTES):
            part = piece[start : start + FRAME_BYTES]
            await writer.writer.write_bytes(part)
            unsent += len(part)
            if unsent >= FRAME_BYTES:
                await writer.finalize()
                unsent = 0
    if unsent:
        await writer.finalize()


def _refusal(error: ServerException) -> EngineError:
    return EngineError(f"Code: {error.code}. DB::Exception: {error.message.removeprefix('DB::Exception: ')}")


def _said(error: BaseException) -> str:
    """The reason at the bottom, in one line."""
    while isinstance(error, ClickHouseException) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, TimeoutError):
        return "no answer"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
