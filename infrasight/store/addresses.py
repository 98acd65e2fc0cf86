"""Where a ClickHouse server is and who we are there, from a URL that holds no secret."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from infrasight.errors import StoreError, StoreUnavailable

COMPRESSIONS = ("lz4", "zstd", "none")
FORM = "clickhouse://USER@HOST:PORT/?PARAMETER=VALUE&..."
_PARAMETERS = frozenset({"host", "secure", "ca", "compression", "password_file", "http_port", "reader", "reader_password_file", "cluster"})
_SECRET = re.compile(r"(://[^:@/?]*:).*(?=@)|(password=)[^&]*", re.DOTALL)
_CLUSTER = re.compile(r"[A-Za-z0-9._-]{1,100}")
_PORTS = {False: (9000, 8123), True: (9440, 8443)}
"""ClickHouse's own, native and HTTP, by whether they are secure."""


@dataclass(frozen=True)
class Login:
    """A user, and where the password is: in a file, or else in an environment variable. It is read for each connection, so it can change."""

    user: str
    file: Path | None
    variable: str

    def password(self) -> str:
        """Empty when there is none. Raises StoreUnavailable."""
        if self.file is None:
            password, where = os.environ.get(self.variable, ""), self.variable
        else:
            password, where = _content(self.file).rstrip("\r\n"), str(self.file)
        if not password.isprintable():
            raise StoreUnavailable(f"the password in {where} is not one line of text")
        return password


def _content(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreUnavailable(f"the password file {file}: {getattr(error, 'strerror', None) or 'not text'}") from None


@dataclass(frozen=True)
class Address:
    """Servers that hold the same tables, tried in this order, and how to talk to them. Nothing in it is secret."""

    hosts: tuple[tuple[str, int], ...]
    """Host and native port of each."""
    http_port: int
    """For queries, the same on each."""
    secure: bool
    ca: Path | None
    """Certificates to trust instead of the system's."""
    compression: str
    """One of `COMPRESSIONS`, of what is inserted."""
    writer: Login
    reader: Login
    """Who asks people's queries."""
    cluster: str = ""
    """Name of the cluster that the tables are spread over; empty for one server."""

    def certificates(self) -> str | None:
        """The file with certificates to trust, if not the system's. Raises StoreUnavailable when it cannot be read."""
        if self.ca is not None and not os.access(self.ca, os.R_OK):
            raise StoreUnavailable(f"the certificates {self.ca} cannot be read")
        return None if self.ca is None else str(self.ca)

    def __str__(self) -> str:
        return "clickhouse://" + ",".join(f"{host}:{port}" for host, port in self.hosts)


def without_secrets(url: str) -> str:
    """The URL as it may be shown, whatever was put into it."""
    return _SECRET.sub(lambda match: f"{match[1] or match[2]}***", url)


def parse(url: str) -> Address:
    """The address that `clickhouse://...` names. Raises StoreError, which shows no secret."""
    try:
        return _parse(url)
    except ValueError as error:
        raise StoreError(f"store {without_secrets(url)!r}: {without_secrets(str(error))}") from None


def _parse(url: str) -> Address:
    parts = urlsplit(url)
    if parts.password is not None or re.search(r"[?&]\w*password=", url):
        raise ValueError("no password in a URL, please: everybody could read it. Use password_file=FILE or the variable INFRASIGHT_STORE_PASSWORD")
    if parts.path not in {"", "/"} or parts.fragment or not parts.hostname:
        raise ValueError(f"expected {FORM}")
    given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    if unknown := {name for name, _ in given} - _PARAMETERS:
        raise ValueError(f"no such parameter: {min(unknown)!r:.60}; there are {', '.join(sorted(_PARAMETERS))}")
    once = dict(given)
    if not unquote(url).isprintable():
        raise ValueError("control characters")
    others = [urlsplit(f"//{value}") for name, value in given if name == "host"]
    names = [host.hostname or "" for host in (parts, *others)]
    if not all(names):
        raise ValueError("host= is HOST or HOST:PORT")
    secure = _flag(once["secure"], "secure") if "secure" in once else not all(map(_is_loopback, names))
    native, http = _PORTS[secure]
    if once.get("compression", "lz4") not in COMPRESSIONS:
        raise ValueError(f"compression is one of {', '.join(COMPRESSIONS)}")
    if (cluster := once.get("cluster", "")) and not _CLUSTER.fullmatch(cluster):
        raise ValueError("cluster is a name: letters, digits and . _ -")
    writer = Login(unquote(parts.username or "default"), _file(once, "password_file"), "INFRASIGHT_STORE_PASSWORD")
    reader = Login(once["reader"], _file(once, "reader_password_file"), "INFRASIGHT_STORE_READER_PASSWORD") if "reader" in once else writer
    return Address(
        hosts=tuple((name, host.port or native) for name, host in zip(names, (parts, *others), strict=True)),
        http_port=_port(once.get("http_port", str(http))),
        secure=secure,
        ca=_file(once, "ca"),
        compression=once.get("compression", "lz4"),
        writer=writer,
        reader=reader,
        cluster=cluster,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _flag(value: str, name: str) -> bool:
    if value not in {"0", "1"}:
        raise ValueError(f"{name} is 0 or 1")
    return value == "1"


def _port(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
        raise ValueError("http_port is a number from 1 to 65535")
    return int(value)


def _file(once: Mapping[str, str], name: str) -> Path | None:
    if name in once and not once[name].startswith("/"):
        raise ValueError(f"{name} is an absolute path")
    return Path(once[name]) if name in once else None
