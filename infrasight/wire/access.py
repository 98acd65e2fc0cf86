"""Who calls: a role, and for nodes the names that they may ship as. What a certificate says of that; tokens are the server's affair."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, unquote

from infrasight.errors import AccessDenied

_FLEET = "spiffe://fleet/infrasight"
_URI = re.compile(r"spiffe://[A-Za-z0-9._-]+/infrasight/(?P<role>node|reader|admin)/(?P<name>[^/?#]+)")


class Role(enum.Enum):
    """What a caller may do."""

    NODE = "node"
    """Ship, under its own name."""
    READER = "reader"
    """Query, subscribe, ask for the status."""
    ADMIN = "admin"
    """Everything."""


@dataclass(frozen=True)
class Principal:
    """A caller that was let in. `names` are those that a node may ship as; None: any."""

    role: Role
    shown: str
    names: frozenset[str] | None = None

    def check_node(self, node: str) -> None:
        """Whether it may ship as `node`. AccessDenied otherwise."""
        if self.names is not None and node not in self.names:
            raise AccessDenied(f"{self.shown} may not ship as {node[:64]!r}")


ANYBODY = Principal(Role.ADMIN, "anybody")


class Access(Protocol):
    """Decides who is let in."""

    def admit(self, certificate: Mapping[str, Any] | None, authorization: str) -> Principal:
        """Who calls, by the client's verified certificate (as ssl gives it) and the header of that name. Unauthenticated when that says nothing
        that counts here."""


class Open:
    """Lets everybody do everything."""

    def admit(self, certificate: Mapping[str, Any] | None, authorization: str) -> Principal:
        return ANYBODY


def uri(role: Role, name: str) -> str:
    """How a certificate says it, as a URI among its subject alternative names."""
    return f"{_FLEET}/{role.value}/{quote(name, safe='')}"


def of_certificate(certificate: Mapping[str, Any]) -> Principal | None:
    """What a verified certificate says, None when that is nothing or not clear.

    A URI `spiffe://TRUST-DOMAIN/infrasight/ROLE/NAME` says role and name. A certificate without one is a node's, of its DNS names: so that of
    another authority will do, which knows nothing of roles. Wildcards name nobody, and the common name is not looked at.
    """
    names = [(kind, value) for kind, value in certificate.get("subjectAltName", ()) if value.isprintable()]
    said = {found for kind, value in names if kind == "URI" and (found := _of_uri(value))}
    if said:
        role, name = min(said, key=str)
        if len(said) > 1 and {each.value for each, _ in said} != {Role.NODE.value}:
            return None
        return Principal(role, f"{role.value} {name!r}", frozenset(each for _, each in said) if role is Role.NODE else None)
    hosts = sorted({value for kind, value in names if kind == "DNS" and "*" not in value})
    return Principal(Role.NODE, f"node {hosts[0]!r}", frozenset(hosts)) if hosts else None


def _of_uri(text: str) -> tuple[Role, str] | None:
    match = _URI.fullmatch(text)
    return (Role(match["role"]), unquote(match["name"])) if match else None
