"""Settings about whom a client trusts and who it is, the same for nodes and for commands: of our server, and of Kubernetes' API server."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from infrasight.errors import SettingsError
from infrasight.settings import option

if TYPE_CHECKING:
    from infrasight.runtimes.kubernetes import Kubernetes
    from infrasight.wire.tls import Credentials

IN_CLUSTER = "in-cluster"
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod has what its service account is known by."""
_NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""What Kubernetes can call a node (RFC 1123)."""


@dataclass(frozen=True)
class Trust:
    """TLS and token of a client (docs/SECURITY.md)."""

    tls_ca: Path | None = option(None, help="speak TLS, with a server that has a certificate of these authorities (PEM, or `system`: the machine's)")
    tls_cert: Path | None = option(None, help="certificate to show to the server (PEM)")
    tls_key: Path | None = option(None, help="its key (PEM), unless that is in the same file")
    token_file: Path | None = option(None, help="file with the token to show to the server")

    @property
    def credentials(self) -> Credentials:
        """As a client takes them."""
        from infrasight.wire.tls import Credentials  # only who connects pays for this import

        return Credentials(self.tls_ca, self.tls_cert, self.tls_key, self.token_file)


@dataclass(frozen=True)
class Cluster:
    """Kubernetes' API server (docs/CONTAINERS.md), and what it calls this machine."""

    node_name: str = option("", env="NODE_NAME", help="name of this node (the host's name, when empty)")
    kubernetes_api: str = option(
        "",
        help=f"have the Kubernetes API server tell of the pods of this node: {IN_CLUSTER}, as a pod finds it, or its address, https://...; "
        "unless given it is not asked",
    )
    kubernetes_ca: Path = option(_SERVICE_ACCOUNT / "ca.crt", help="authorities that its certificate is checked against (PEM, or `system`)")
    kubernetes_token_file: Path = option(_SERVICE_ACCOUNT / "token", help="file with the token to show to it, read again each time")

    @property
    def node(self) -> str:
        """The node's name."""
        return self.node_name or os.uname().nodename

    @property
    def kubernetes(self) -> Kubernetes | None:
        """The API server, if it is to be asked. SettingsError for what is none."""
        if not self.kubernetes_api:
            return None
        url = _in_cluster() if self.kubernetes_api == IN_CLUSTER else self.kubernetes_api.rstrip("/")
        encrypted, node = _is_encrypted(url), self.node.lower()  # as the kubelet does with a host's name
        if not _NODE_NAME.fullmatch(node):
            raise SettingsError(f"--node-name: {node!r} is no name that Kubernetes can have for a node")
        from infrasight.runtimes.kubernetes import Kubernetes  # it brings aiohttp along
        from infrasight.wire.tls import Credentials

        return Kubernetes(url, Credentials(self.kubernetes_ca, token_file=self.kubernetes_token_file) if encrypted else Credentials(), node)


def _in_cluster() -> str:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host:
        raise SettingsError(f"--kubernetes-api: this is no pod of Kubernetes (no KUBERNETES_SERVICE_HOST): give an address instead of {IN_CLUSTER}")
    return f"https://{f'[{host}]' if ':' in host else host}:{port or 443}"


def _is_encrypted(url: str) -> bool:
    """Whether what goes to this address is; SettingsError for one that cannot be talked to, or must not."""
    from infrasight.wire.tls import is_loopback

    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.username is not None or parts.query or parts.fragment:
        raise SettingsError("--kubernetes-api: it is neither in-cluster nor an address such as https://10.0.0.1:6443")
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingsError(f"--kubernetes-api: {host} is another machine, and nothing would be encrypted: give its https:// address")
    return parts.scheme == "https"
