"""TLS under gRPC: contexts made from files and made again when those change, and a handshake that tells the other side what is wrong.

asyncio closes a connection whose handshake failed without sending the alert that says why, and its servers tell nobody. So both sides use its
protocol (`asyncio.sslproto`, which the standard library's own transports use) with that mended.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import ssl
from asyncio.sslproto import SSLProtocol, SSLProtocolState
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import CredentialsUnusable

log = logging.getLogger(__name__)
logging.getLogger("hpack").setLevel(logging.INFO)  # below that it writes down every header, and so tokens
HANDSHAKE_S = 10.0
"""What a handshake may take."""
SHUTDOWN_S = 2.0
"""What a farewell may take: who does not answer it keeps a server that stops no longer."""
SYSTEM = Path("system")
"""In place of a file of authorities: those that the machine trusts."""
CLIENT_HELLO, ALERT_TYPE = b"\x16\x03", b"\x15\x03"
"""How what a client says first begins, and what a server says whom it does not understand."""
_PROTOCOL_VERSION = b"\x01\x00\x02\x02\x46"
_MAX_TOKEN_BYTES = 4096
_ENDING = (SSLProtocolState.FLUSHING, SSLProtocolState.SHUTDOWN)
"""What fails while a connection is closed is of no interest."""
_REVOCATIONS = "BEGIN X509 CRL"
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "HTTPS_PROXY_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can be at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Credentials:
    """What a client shows and whom it trusts. Files are read anew for each connection, the token for each call.

    `tls_ca` is the file of the authorities that the server's certificate is checked against (or `system`); without it nothing is encrypted.
    `tls_cert` and `tls_key` are the client's own, if the server asks for one; the key may be in the file of the certificate.
    """

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None

    @property
    def encrypts(self) -> bool:
        """Whether connections are encrypted. CredentialsUnusable for files that make no sense together."""
        if self.tls_ca is None and (self.tls_cert or self.tls_key):
            raise CredentialsUnusable("a certificate of our own is shown over TLS only: give --tls-ca, to know the server by, too")
        if self.tls_key and not self.tls_cert:
            raise CredentialsUnusable("--tls-key goes with --tls-cert")
        return self.tls_ca is not None

    def context(self) -> ssl.SSLContext:
        """For one connection. CredentialsUnusable when a file cannot be used."""
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        if self.tls_ca == SYSTEM:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        elif self.tls_ca:
            _trust(context, self.tls_ca)
        if self.tls_cert:
            _show(context, self.tls_cert, self.tls_key)
        return context

    def headers(self) -> dict[str, str]:
        """Of one call: the token, if there is one. CredentialsUnusable when its file cannot be used."""
        if self.token_file is None:
            return {}
        try:
            with self.token_file.open("rb") as file:
                token = file.read(_MAX_TOKEN_BYTES + 1).strip()
        except OSError as error:
            raise CredentialsUnusable(f"the token cannot be read: {self.token_file}: {error.strerror}") from None
        if not token or len(token) > _MAX_TOKEN_BYTES or not all(0x21 <= byte <= 0x7E for byte in token):
            raise CredentialsUnusable(f"{self.token_file} is not one token in one line")
        return {"authorization": f"Bearer {token.decode()}"}


class ServerTls:
    """A server's certificate, and whether it asks for that of clients."""

    def __init__(self, cert: Path, key: Path | None, client_ca: Path | None = None, *, optional: bool = False) -> None:
        """With `client_ca` clients need a certificate from there; one is not needed when it is `optional`, but still has to be good. The file
        may have lists of revoked certificates in it too. CredentialsUnusable when a file cannot be used."""
        self._cert, self._key, self._client_ca, self._optional = cert, key, client_ca, optional
        self._files = [file for file in (cert, key, client_ca) if file is not None]
        self._stamps = list(map(stamp, self._files))
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """For one handshake. Files that changed are read again; if they cannot be used, what there was stays, and a line in the log says so."""
        stamps = list(map(stamp, self._files))
        if stamps != self._stamps:
            self._stamps = stamps
            try:
                self._context = self._made()
                log.info("the certificates were read again")
            except CredentialsUnusable as error:
                log.error("the certificates stay as they were: %s", error)
        return self._context

    def _made(self) -> ssl.SSLContext:
        context = _context(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0  # who comes again is looked at again
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
        _show(context, self._cert, self._key)
        if self._client_ca:
            _trust(context, self._client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if self._optional else ssl.CERT_REQUIRED
        return context


class Tls(SSLProtocol):
    """TLS between a transport and `protocol`. `failed` hears why, in words, when it fails, once."""

    max_size = 32 << 10  # of one read: each connection keeps that much
    _state: SSLProtocolState
    _transport: asyncio.Transport | None
    _process_outgoing: Callable[[], None]

    def __init__(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        failed: Callable[[str], None],
        *,
        server_hostname: str | None = None,
        shaken: asyncio.Future[None] | None = None,
    ) -> None:
        """A client's has a `server_hostname`, which the certificate has to be for; `shaken` is done with the handshake."""
        self._failed = failed
        super().__init__(
            asyncio.get_running_loop(),
            protocol,
            context,
            shaken,  # type: ignore[arg-type]  # asyncio's own servers give None
            server_side=server_hostname is None,
            server_hostname=server_hostname,
            ssl_handshake_timeout=HANDSHAKE_S,  # type: ignore[arg-type]  # float works as well
            ssl_shutdown_timeout=SHUTDOWN_S,
        )

    def close(self) -> None:
        """Give up, whether or not the handshake is over."""
        if self._transport is not None:
            self._transport.abort()

    def _fatal_error(self, error: BaseException, message: str = "") -> None:
        if self._state not in _ENDING:
            self._failed(in_words(error))
        if isinstance(error, ssl.SSLError) and self._transport is not None:
            if error.reason in _NOT_TLS:
                self._transport.write(ALERT_TYPE + _PROTOCOL_VERSION)  # OpenSSL says nothing to what it takes for HTTP
            with contextlib.suppress(Exception):
                self._process_outgoing()  # the alert
            self._transport.close()  # after that is sent
        else:
            super()._fatal_error(error if isinstance(error, OSError) else ConnectionError(str(error)), message)


def in_words(error: BaseException) -> str:
    """What went wrong with TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "unknown"
        if reason in _NOT_TLS:
            return "what it speaks is not TLS"
        _, alert, refusal = reason.partition("_ALERT_")
        return f"TLS refused by the other side: {_spaced(refusal)}" if alert else f"TLS failed: {_spaced(reason)}"
    if isinstance(error, ConnectionAbortedError):
        return f"no TLS handshake within {HANDSHAKE_S:g} s"
    return "gone before the TLS handshake was over" if isinstance(error, ConnectionError) else str(error)


def _spaced(name: str) -> str:
    return name.lower().replace("_", " ")


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["h2"])
    return context


def _trust(context: ssl.SSLContext, file: Path) -> None:
    try:
        text = file.read_text("ascii", "replace")
        context.load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise CredentialsUnusable(f"{file} holds no certificates of authorities (PEM)") from None
    except OSError as error:
        raise CredentialsUnusable(f"{file}: {error.strerror}") from None
    if _REVOCATIONS in text:
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def _show(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    for file in (cert, key):
        try:
            if file:
                file.open("rb").close()
        except OSError as error:
            raise CredentialsUnusable(f"{file}: {error.strerror}") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except ssl.SSLError as error:
        why = "key and certificate do not belong together" if error.reason == "KEY_VALUES_MISMATCH" else "no certificate with its key (PEM)"
        raise CredentialsUnusable(f"{cert}{f', {key}' if key else ''}: {why}") from None
    except OSError as error:
        raise CredentialsUnusable(f"{cert}: {error.strerror}") from None


def _no_password() -> str:
    raise CredentialsUnusable("the key is encrypted, and nobody is here to be asked for its password: use one that is not, with mode 0600")


def stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes when `file` does; None while it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size
