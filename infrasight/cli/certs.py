"""`infrasight certs`: an authority, certificates and tokens for a small fleet, as files in a directory (docs/SECURITY.md)."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from infrasight.cli.options import (
    CertsInitOptions,
    CertsNodeOptions,
    CertsOptions,
    CertsRenewOptions,
    CertsRevokeOptions,
    CertsServerOptions,
    CertsShowOptions,
    CertsTokenOptions,
    CertsUserOptions,
    Holder,
)
from infrasight.cli.private import directory_for, write_new, written_anew
from infrasight.cli.screen import write
from infrasight.errors import CommandLineError

if TYPE_CHECKING:
    from infrasight.cli.authority import Authority

TOKENS = "tokens"
"""The file of hashed tokens, for the server."""
_PREFIX = "isk_"
"""What our tokens begin with, so that one that gets out is known for what it is."""
_NAME = re.compile(r"[^\s:\x00-\x1f\x7f.][^\s:\x00-\x1f\x7f]{0,252}")
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(\.(?!-)[A-Za-z0-9-]{1,63})*")


def run(options: CertsOptions) -> int:
    """Do what the options are of; the exit status."""
    try:
        lines, status = _ACTIONS[type(options)](options)
    except ModuleNotFoundError as error:
        if error.name != "cryptography":
            raise
        raise CommandLineError("certificates are made with the Python package cryptography: pip install 'infrasight[server]'") from None
    write(line + "\n" for line in lines)
    return status


def _init(options: CertsInitOptions) -> tuple[list[str], int]:
    directory_for(options.dir)
    from infrasight.cli.authority import CA, CA_KEY, CLIENTS, Authority  # only what makes certificates pays for cryptography

    Authority.create(options.dir, "InfraSight fleet", options.days)
    return [
        f"{options.dir / CA}: for everybody, --tls-ca",
        f"{options.dir / CLIENTS}: for servers, --tls-client-ca",
        f"{options.dir / CA_KEY}: to sign with; keep it here, and a copy in a safe place",
    ], 0


def _server(options: CertsServerOptions) -> tuple[list[str], int]:
    from infrasight.cli.authority import Subject

    if not options.hosts:
        raise CommandLineError("a server has at least one host, name or address")
    hosts = tuple(map(_host, options.hosts))
    issued = _authority(options).issue(Subject(f"server-{quote(hosts[0], safe='')}", hosts=hosts), options.days)
    return _said(issued, f"for a server that is reached as {', '.join(hosts)}: --tls-cert, --tls-key"), 0


def _node(options: CertsNodeOptions) -> tuple[list[str], int]:
    return _client(options, "node", options.name, options.days, f"for the node that is called {options.name}: --tls-cert, --tls-key, and --tls-ca")


def _user(options: CertsUserOptions) -> tuple[list[str], int]:
    role = options.role.value
    return _client(options, role, options.name, options.days, f"for {options.name}, as {role}: --tls-cert, --tls-key, and --tls-ca")


def _client(options: CertsOptions, role: str, name: str, days: int, use: str) -> tuple[list[str], int]:
    from infrasight.cli.authority import Subject
    from infrasight.wire.access import Role, uri

    subject = Subject(f"{role}-{_file_name(name)}", uri=uri(Role(role), name))
    return _said(_authority(options).issue(subject, days), use), 0


def _token(options: CertsTokenOptions) -> tuple[list[str], int]:
    """The token goes into a file and nowhere else: not to the screen, which others may see or keep."""
    _file_name(options.name)
    if options.name == "*" and options.role is not Holder.NODE:
        raise CommandLineError("* is no name but for nodes")
    directory_for(options.dir)
    token = _PREFIX + secrets.token_urlsafe(32)
    line = f"{hashlib.sha256(token.encode()).hexdigest()} {options.role.value} {options.name}\n"
    known, file = options.dir / TOKENS, options.dir / _token_name(line)
    before = _read(known)
    write_new(file, f"{token}\n".encode(), secret=True)
    written_anew(known, before + line.encode(), secret=True)
    return [f"{file}: for {options.role.value} {options.name}, --token-file", f"{known}: for servers, --tokens (hashes only)"], 0


def _renew(options: CertsRenewOptions) -> tuple[list[str], int]:
    if not options.names:
        raise CommandLineError("which certificates? `infrasight certs show` names them")
    authority = _authority(options)
    return [line for name in map(_stem, options.names) for line in _said(authority.renew(name, options.days), "made anew")], 0


def _revoke(options: CertsRevokeOptions) -> tuple[list[str], int]:
    name = _stem(options.name)
    known = options.dir / TOKENS
    lines = _read(known).decode("utf-8", "surrogateescape").splitlines(keepends=True)
    kept = [line for line in lines if _token_name(line) != name]
    if kept != lines:
        written_anew(known, "".join(kept).encode("utf-8", "surrogateescape"), secret=True)
        (options.dir / name).unlink(missing_ok=True)
        return [f"{known}: without {name}; what is connected with it stays until it ends"], 0
    return [f"{_authority(options).revoke(name)}: {name} is revoked; what is connected with it stays until it ends"], 0


def _show(options: CertsShowOptions) -> tuple[list[str], int]:
    found = list(_authority(options).found()) if any(options.dir.glob("*.pem")) else []
    lines = [f"{each.file.stem:<32} until {each.until:%Y-%m-%d}  {each.problem or 'good':<8} {', '.join(each.names)}" for each in found]
    tokens = map(_token_name, _read(options.dir / TOKENS).decode("utf-8", "replace").splitlines())
    lines += [f"{name:<32} a token" for name in tokens if name]
    if not lines:
        raise CommandLineError(f"{options.dir} holds no certificates and no tokens (`infrasight certs init` begins)")
    return lines, 1 if any(each.problem == "expired" for each in found) else 0


_ACTIONS: dict[type[CertsOptions], Callable[[Any], tuple[list[str], int]]] = {
    CertsInitOptions: _init,
    CertsServerOptions: _server,
    CertsNodeOptions: _node,
    CertsUserOptions: _user,
    CertsTokenOptions: _token,
    CertsRenewOptions: _renew,
    CertsRevokeOptions: _revoke,
    CertsShowOptions: _show,
}


def _authority(options: CertsOptions) -> Authority:
    from infrasight.cli.authority import Authority

    return Authority.load(options.dir)


def _said(issued: tuple[Path, Path], use: str) -> list[str]:
    return [f"{issued[0]}, {issued[1].name}: {use}"]


def _host(text: str) -> str:
    """A name or an address that clients connect to. CommandLineError for anything else."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if not _HOST.fullmatch(text):
            raise CommandLineError(f"{text!r:.64} is no host's name or address") from None
    return text


def _file_name(name: str) -> str:
    """A name, as part of a file's. CommandLineError for one that no node can have."""
    if not _NAME.fullmatch(name):
        raise CommandLineError(f"{name!r:.64} is no name: 1 to 253 characters, no spaces or colons, no dot to begin with")
    return quote(name, safe="")


def _stem(name: str) -> str:
    """What `show` calls a file, however it is given: `node-a`, `node-a.pem`. CommandLineError for one elsewhere."""
    if "/" in name:
        raise CommandLineError(f"{name!r:.64}: only the name, as `infrasight certs show` has it; --dir says where")
    return name.removesuffix(".pem").removesuffix(".key")


def _token_name(line: str) -> str:
    """What the token of a line of `tokens` is called, and its file; nothing for another line."""
    words = line.split()
    return f"token-{words[1]}-{quote(words[2], safe='')}" if len(words) == 3 and words[0] != "#" else ""


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise CommandLineError(f"{file}: {error.strerror}") from None
