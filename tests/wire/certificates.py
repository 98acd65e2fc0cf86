"""Certificates for tests: each authority in a directory of its own, made as `infrasight certs` makes them."""

from __future__ import annotations

import datetime
import functools
import tempfile
from pathlib import Path

from infrasight.cli.authority import CA, CLIENTS, Authority, Subject
from infrasight.wire.access import Role, uri
from infrasight.wire.tls import Credentials, ServerTls

YEAR = 365


class Fleet:
    """An authority, and what it made."""

    def __init__(self, directory: Path | None = None) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="infrasight-certs-"))
        self.authority = Authority.create(self.directory, "a test's fleet", YEAR)
        self.ca, self.clients = self.directory / CA, self.directory / CLIENTS

    def server(self, *hosts: str, name: str = "server", days: float = YEAR, begins: datetime.datetime | None = None) -> tuple[Path, Path]:
        return self.authority.issue(Subject(name, hosts or ("127.0.0.1", "localhost")), days, begins=begins, anew=True)

    def client(self, role: Role, name: str, *, days: float = YEAR, begins: datetime.datetime | None = None) -> Credentials:
        files = self.authority.issue(Subject(f"{role.value}-{name}", uri=uri(role, name)), days, begins=begins, anew=True)
        return Credentials(self.ca, *files)

    def tls(self, *, mutual: bool = False, optional: bool = False) -> ServerTls:
        return ServerTls(*self.server(), self.clients if mutual or optional else None, optional=optional)


@functools.cache
def fleet() -> Fleet:
    """One that tests share which change nothing of it."""
    return Fleet()
