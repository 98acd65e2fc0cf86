"""Queries over ClickHouse's HTTP interface: the native protocol gives blocks of columns only, and people ask for JSON, CSV, Arrow, Parquet.

The standard library's client, in the threads that read anyway. A connection for each request: nothing of one can reach the next.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import urlencode

from infrasight.errors import StoreError, StoreUnavailable
from infrasight.schema.ddl import DATABASE, text
from infrasight.store.addresses import Address
from infrasight.store.interface import QueryLimits
from infrasight.store.session import EngineError
from infrasight.store.settings import SERVER_QUERY

CONNECT_S = 5.0
_BEYOND_LIMIT_S = 15.0
"""How much longer than it may work a server may be silent."""
_KILL_S = 2.0
_CHUNK_BYTES = 1 << 20
_READS = frozenset(
    {"SelectWithUnionQuery", "Explain", "ShowTables", "ShowColumns", "ShowCreateTableQuery", "ShowCreateDatabaseQuery", "DescribeQuery"}
    | {"ExistsTableQuery", "ExistsDatabaseQuery"}
)
_OUTFILE = " Literal "
"""What the statement itself has beneath it only for a file to write to."""
_FAILURE = re.compile(rb"\r?\n?__exception__\r?\n(?:[a-z]{16}\r?\n)?(?=Code: )|Code: \d+, e\.displayText\(\) = ")
"""Where in the rows an error begins that came when some of them were sent: of ClickHouse from 25.3 on, and of those before 20."""
_FAILURE_BYTES = 80
"""More than the beginning of an error takes."""


class Session:
    """Where one query runs; see `session.Session`. Its every request goes to the first host that takes it."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._settings: dict[str, str] = {"database": DATABASE}
        self._mark = ""
        self._requests = 0
        self._killed = False
        self._timeout_s = _BEYOND_LIMIT_S
        self._socket: socket.socket | None = None
        self._response: HTTPResponse | None = None

    def restrict(self, limits: QueryLimits, mark: str) -> None:
        """Send the limits, and `readonly`, with every request from here on."""
        self._mark = mark
        self._timeout_s = limits.seconds + _BEYOND_LIMIT_S
        self._settings |= {
            "max_execution_time": f"{limits.seconds:g}",
            "max_memory_usage": str(limits.memory_bytes),
            "max_result_rows": str(limits.rows),
            "max_result_bytes": str(4 * limits.result_bytes),
            **SERVER_QUERY,
            "readonly": "1",
        }

    def execute(self, sql: str, format: str = "TabSeparatedRaw") -> bytes:
        """Run a statement; the whole result, which the server holds back until it is known to be whole."""
        with self._answer(sql, {"default_format": format, "wait_end_of_query": "1"}) as response, self._translated():
            return response.read()

    def rows(self, sql: str) -> list[list[str]]:
        """The result of a query of ours, whose values have no tabs, line ends or backslashes."""
        return [line.split("\t") for line in self.execute(sql).decode().splitlines()]

    def stream(self, sql: str, format: str) -> Stream:
        """Start a SELECT whose result is fetched piece by piece."""
        return Stream(self, self._request(sql, {"default_format": format}))

    def is_one_read(self, sql: str) -> bool:
        """Whether the server parses it as one statement that reads, without INTO OUTFILE. Of several it takes none."""
        try:
            lines = self.explain(sql)
        except EngineError:
            return False
        return lines[0].split(" ")[0] in _READS and not any(line.startswith(_OUTFILE) for line in lines)

    def explain(self, sql: str) -> list[str]:
        """ClickHouse's parse of one statement, a line each node."""
        return self.execute(f"EXPLAIN AST {sql}").decode(errors="replace").split("\n")[:-1]

    def check_syntax(self, sql: str) -> None:
        """Raises EngineError with ClickHouse's own words when it is not one well-formed statement. Runs nothing of it."""
        self.execute(f"SELECT formatQuery({text(sql)})")

    def kill(self) -> None:
        """End what is running, from any thread: let go of the answer, and tell the server."""
        self._killed = True
        if (running := self._socket) is not None:
            with suppress(OSError):
                running.shutdown(socket.SHUT_RDWR)
        if self._mark:
            killer = Session(self._address)
            killer._timeout_s = _KILL_S
            with suppress(StoreUnavailable):  # it sees for itself that nobody listens, where it can
                killer.execute(f"KILL QUERY WHERE query_id LIKE '{self._mark}-%' SYNC")

    def close(self) -> None:
        """Legal twice."""
        for each in (self._response, self._socket):
            if each is not None:
                each.close()
        self._response = self._socket = None

    @contextmanager
    def _answer(self, sql: str, parameters: Mapping[str, str]) -> Iterator[HTTPResponse]:
        try:
            yield self._request(sql, parameters)
        finally:
            self.close()

    def _request(self, sql: str, parameters: Mapping[str, str]) -> HTTPResponse:
        """The server's answer, its body unread. Raises EngineError when it is a refusal."""
        self.close()
        connection = self._connected()
        self._requests += 1
        settings = {**self._settings, **parameters} | ({"query_id": f"{self._mark}-{self._requests}"} if self._mark else {})
        who = {"X-ClickHouse-User": self._address.reader.user, "X-ClickHouse-Key": self._address.reader.password()}
        with self._translated():
            connection.request(
                "POST", "/?" + urlencode(settings), sql.encode(errors="surrogateescape"), {name: value.encode() for name, value in who.items()}
            )
            self._response = response = connection.getresponse()
            if response.status == 200:
                return response
            said = response.read(1 << 16).decode(errors="replace")
        self.close()
        raise EngineError(said if "Code: " in said else f"HTTP {response.status}: what answers there is no ClickHouse server's HTTP port")

    def _connected(self) -> HTTPConnection:
        failures = []
        for host, _ in self._address.hosts:
            connection = self._to(host)
            try:
                connection.connect()
            except OSError as error:
                connection.close()
                failures.append(f"{host}:{self._address.http_port}: {_reason(error)}")
                continue
            connection.sock.settimeout(self._timeout_s)
            self._socket = connection.sock
            return connection
        raise StoreUnavailable("; ".join(failures))

    def _to(self, host: str) -> HTTPConnection:
        if not self._address.secure:
            return HTTPConnection(host, self._address.http_port, timeout=CONNECT_S)
        try:
            trust = ssl.create_default_context(cafile=self._address.certificates())
        except OSError as error:
            raise StoreUnavailable(f"certificates in {self._address.ca}: {_reason(error)}") from None
        return HTTPSConnection(host, self._address.http_port, timeout=CONNECT_S, context=trust)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, HTTPException, ValueError) as error:  # the last: shut by another thread
            self.close()
            if self._killed:
                raise EngineError("the query was ended") from error
            raise StoreUnavailable(f"{self._address}: the connection broke: {_reason(error)}") from error


class Stream:
    """The result of a running SELECT. One call at a time, each may come from another thread."""

    def __init__(self, session: Session, response: HTTPResponse) -> None:
        self._session = session
        self._response = response
        self._held = b""
        """Read, and not handed out yet: an error could begin in it."""
        self._over = False

    def fetch(self) -> bytes | None:
        """Blocks for the next chunk; None is the end. Raises EngineError, StoreUnavailable."""
        while not self._over:
            broken = self._read()
            if failure := _FAILURE.search(self._held):
                self._over = True
                raise EngineError(self._rest(failure.start()))
            if broken is not None:
                self._over = True
                raise broken
            end = len(self._held) if self._over else max(0, len(self._held) - _FAILURE_BYTES)
            chunk, self._held = self._held[:end], self._held[end:]
            if chunk:
                return chunk
        return None

    def cancel(self) -> None:
        """End the query. Legal after its end and twice. Raises EngineError."""
        self._session.close()  # first: a server that waits for us to read more cannot be told anything
        if not self._over:
            self._over = True
            self._session.kill()

    def _read(self) -> StoreError | None:
        """Hold some more; what broke, where an answer ended before its end."""
        try:
            with self._session._translated():
                piece = self._response.read1(_CHUNK_BYTES)
        except StoreError as error:
            return error
        self._over = not piece
        self._held += piece
        return None

    def _rest(self, start: int) -> str:
        """The error that begins there, as far as it comes."""
        text = self._held[start:]
        with suppress(StoreError):
            while len(text) < 1 << 16:
                with self._session._translated():
                    piece = self._response.read1(_CHUNK_BYTES)
                if not piece:
                    break
                text += piece
        return re.sub(rb"^\s*__exception__\s+([a-z]{16}\s+)?", b"", text).decode(errors="replace")


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer"
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join("".join(each if each.isprintable() else " " for each in said).split())
