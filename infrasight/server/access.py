"""Who may do what: by the certificate that a client shows, or by its token. Tokens are kept as hashes only."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infrasight.errors import CannotListen, CredentialsUnusable, Unauthenticated
from infrasight.server.settings import Settings
from infrasight.wire.access import Access, Principal, Role, of_certificate
from infrasight.wire.tls import ServerTls, is_loopback, stamp

log = logging.getLogger(__name__)
ANY_NODE = "*"
"""In place of a node's name: the token is for all of them."""
_LINE = re.compile(r"(?P<digest>[0-9a-f]{64})\s+(?P<role>[a-z]+)\s+(?P<name>\S{1,253})")


class Tokens:
    """A file of lines `sha256-of-the-token role name`; empty lines and those that begin with # count for nothing."""

    def __init__(self, file: Path) -> None:
        """CredentialsUnusable when it cannot be read, or a line of it is not one."""
        self._file = file
        self._stamp = stamp(file)
        self._principals = _read(file)

    def principal(self, token: str) -> Principal | None:
        """Whose `token` it is. A file that changed is read again; if it cannot be used, what there was stays, and a line in the log says so."""
        now = stamp(self._file)
        if now != self._stamp:
            self._stamp = now
            try:
                self._principals = _read(self._file)
                log.info("the tokens were read again: there are %d", len(self._principals))
            except CredentialsUnusable as error:
                log.error("the tokens stay as they were: %s", error)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for known, principal in self._principals.items():  # all of them, however soon it is found
            if hmac.compare_digest(known, digest):
                found = principal
        return found


class Known:
    """Lets in who shows a certificate that says who it is, or a token that is known. The certificate counts where there are both."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def admit(self, certificate: Mapping[str, Any] | None, authorization: str) -> Principal:
        if certificate:
            principal = of_certificate(certificate)
            if principal is None:
                raise Unauthenticated("the certificate says neither one role nor a node's name (docs/SECURITY.md)")
            return principal
        if self._tokens is None:
            raise Unauthenticated("a certificate is needed: --tls-cert, --tls-key")
        scheme, _, token = authorization.partition(" ")
        if not authorization:
            raise Unauthenticated("a token is needed: --token-file")
        principal = self._tokens.principal(token.strip()) if scheme.lower() == "bearer" else None
        if principal is None:
            raise Unauthenticated("that token is not known here")
        return principal


def admission(settings: Settings) -> tuple[ServerTls | None, Access | None]:
    """What the settings ask for. CredentialsUnusable when they make no sense together or a file cannot be used, CannotListen when tokens would
    travel in the clear."""
    tokens = Tokens(settings.tokens) if settings.tokens else None
    access = Known(tokens) if tokens or settings.tls_client_ca else None
    if settings.tls_cert:
        return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca, optional=tokens is not None), access
    if settings.tls_key or settings.tls_client_ca:
        raise CredentialsUnusable("--tls-key and --tls-client-ca go with --tls-cert")
    if tokens and not is_loopback(settings.server_addr):
        raise CannotListen(f"{settings.server_addr} can be reached by other machines, and tokens would go there in the clear: give --tls-cert")
    return None, access


def _read(file: Path) -> dict[str, Principal]:
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        raise CredentialsUnusable(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CredentialsUnusable(f"{file} is not text") from None
    return dict(_parsed(file, number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.lstrip().startswith("#"))


def _parsed(file: Path, number: int, line: str) -> tuple[str, Principal]:
    match = _LINE.fullmatch(line.strip())
    try:
        if match is None:
            raise ValueError
        role, name = Role(match["role"]), match["name"]
    except ValueError:  # what it says may be a token: it is not repeated
        raise CredentialsUnusable(f"{file}: line {number} is not: sha256 of a token, role (node, reader, admin), name") from None
    names = frozenset({name}) if role is Role.NODE and name != ANY_NODE else None
    return match["digest"], Principal(role, f"{role.value} {name!r}", names)
