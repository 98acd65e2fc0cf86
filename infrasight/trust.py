"""Settings about whom a client trusts and who it is, the same for nodes and for commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infrasight.settings import option

if TYPE_CHECKING:
    from infrasight.wire.tls import Credentials


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
