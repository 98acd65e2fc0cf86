"""TLS: real handshakes over loopback, those that come about and those that must not, and what either side says of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import logging
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from infrasight.cli.authority import Subject
from infrasight.client import Client, Credentials
from infrasight.errors import CannotListen, CredentialsUnusable, Unreachable
from infrasight.wire import complaints
from infrasight.wire.access import Open, Role
from infrasight.wire.limits import Limits
from infrasight.wire.server import GrpcServer
from infrasight.wire.tls import SYSTEM, ServerTls
from tests.waiting import LIMIT_S, until
from tests.wire.certificates import Fleet, fleet
from tests.wire.echo import Echo, raw

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@contextlib.asynccontextmanager
async def serving(tls: ServerTls | None, **limits: int) -> AsyncIterator[GrpcServer]:
    server = GrpcServer([Echo()], tls=tls, limits=Limits(**limits))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def client(server: GrpcServer, credentials: Credentials | None = None) -> Client:
    return Client(port=server.port, credentials=credentials, answer_within_s=10)


@pytest.fixture
def mine(tmp_path: Path) -> Fleet:
    """A fleet whose files a test may change."""
    return Fleet(tmp_path)


@pytest.fixture(autouse=True)
def _every_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tests complain in a second."""
    monkeypatch.setattr(complaints, "PER_S", 1_000_000)


@pytest.mark.parametrize("mutual", [False, True])
async def test_calls_and_answers_of_any_size_over_tls(mutual: bool) -> None:
    credentials = fleet().client(Role.READER, "ann") if mutual else Credentials(fleet().ca)
    async with serving(fleet().tls(mutual=mutual)) as server, client(server, credentials) as asking:
        assert (await asking.status()).version == "echo"
        for size in (1, 17_000, 200_000):
            assert b"".join([chunk async for chunk in asking.query("x" * size)]) == b"x" * size
        assert not server.refused


async def test_key_and_certificate_may_be_in_one_file(tmp_path: Path) -> None:
    cert, key = fleet().server()
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    async with serving(ServerTls(both, None)) as server, client(server, Credentials(fleet().ca)) as asking:
        assert (await asking.status()).version == "echo"


@pytest.mark.parametrize(("highest", "spoken"), [(ssl.TLSVersion.TLSv1_3, "TLSv1.3"), (ssl.TLSVersion.TLSv1_2, "TLSv1.2")])
async def test_the_newest_tls_that_both_know(highest: ssl.TLSVersion, spoken: str) -> None:
    async with serving(fleet().tls()) as server:
        context = Credentials(fleet().ca).context()
        context.maximum_version = highest
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        tls = writer.get_extra_info("ssl_object")
        assert (tls.version(), tls.selected_alpn_protocol()) == (spoken, "h2")
        writer.close()


async def test_nothing_older_than_tls_1_2() -> None:
    async with serving(fleet().tls()) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with warnings.catch_warnings(action="ignore"):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.load_verify_locations(fleet().ca)
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
        await until(lambda: server.refused["tls"] == 1)


def of_another_authority() -> Credentials:
    return dataclasses.replace(Fleet().client(Role.NODE, "n1"), tls_ca=fleet().ca)


def a_servers() -> Credentials:
    return Credentials(fleet().ca, *fleet().server(name="as-a-client"))


@pytest.mark.parametrize(
    ("credentials", "client_says", "server_says"),
    [
        (lambda: Credentials(fleet().ca), "certificate required", "peer did not return a certificate"),
        (of_another_authority, "unknown ca", "unable to get local issuer certificate"),
        (lambda: fleet().client(Role.NODE, "old", days=1, begins=NOW - 3 * DAY), "certificate expired", "certificate has expired"),
        (lambda: fleet().client(Role.NODE, "new", days=1, begins=NOW + 3 * DAY), "bad certificate", "certificate is not yet valid"),
        (a_servers, "unsupported certificate", "unsuitable certificate purpose|unsupported certificate purpose"),
        (lambda: None, "it speaks TLS: give --tls-ca", "what it speaks is not TLS"),
    ],
    ids=["none", "wrong authority", "expired", "not yet valid", "a server's", "plain"],
)
async def test_who_has_no_good_certificate_is_refused_and_both_sides_say_why(
    credentials: Callable[[], Credentials], client_says: str, server_says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(fleet().tls(mutual=True)) as server, client(server, fleet().client(Role.NODE, "n1")) as good, good.subscribe():
        with pytest.raises(Unreachable, match=client_says) as failure:
            async with client(server, credentials()) as asking:
                await asking.status()
        assert "\n" not in str(failure.value)
        assert f"127.0.0.1:{server.port}" in str(failure.value)
        await until(lambda: server.refused["tls"] == 1)
        assert any(each in caplog.messages[-1] for each in server_says.split("|")), caplog.messages
        assert caplog.messages[-1].startswith("refused 127.0.0.1:")
        assert (await good.status()).version == "echo"


@pytest.mark.parametrize(
    ("tls", "says", "server_says"),
    [
        (lambda: Fleet().tls(), "unable to get local issuer certificate", "unknown ca"),
        (lambda: ServerTls(*fleet().server("other.example", name="other")), "not valid for '127.0.0.1'", "certificate"),
        (lambda: ServerTls(*fleet().server(name="old", days=1, begins=NOW - 3 * DAY)), "certificate has expired", "certificate expired"),
        (lambda: ServerTls(*fleet().server(name="new", days=1, begins=NOW + 3 * DAY)), "not yet valid", "certificate"),
        (lambda: None, "what it speaks is not TLS", "it speaks TLS, and this server was given no --tls-cert"),
    ],
    ids=["wrong authority", "wrong name", "expired", "not yet valid", "plain"],
)
async def test_a_server_without_a_good_certificate_is_not_trusted(
    tls: Callable[[], ServerTls | None], says: str, server_says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tls()) as server:
        with pytest.raises(Unreachable, match=says):
            async with client(server, Credentials(fleet().ca)) as asking:
                await asking.status()
        await until(lambda: sum(server.refused.values()) == 1)
        assert server_says in caplog.messages[-1]


async def test_whoever_stops_or_hangs_in_the_handshake_harms_nobody(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("infrasight.wire.tls.HANDSHAKE_S", 0.2)
    async with serving(fleet().tls()) as server, client(server, Credentials(fleet().ca)) as good:
        with socket.create_connection(("127.0.0.1", server.port)):
            await until(lambda: server.refused["tls"] == 1)
        assert "no TLS handshake within 0.2 s" in caplog.messages[-1]
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.close()
        await until(lambda: server.refused["tls"] == 2)
        assert "gone before the TLS handshake was over" in caplog.messages[-1]
        for rubbish in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), bytes(5000), b"\x16\x03\x01\x00\x05hello"):
            await raw(server.port, rubbish)
        await until(lambda: server.refused["tls"] == 6)
        assert (await good.status()).version == "echo"


def test_on_uvloop_too(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Programs run on it; its transports are others than asyncio's."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_calls_and_answers_of_any_size_over_tls(True))
        for credentials, client_says, server_says in (
            (Credentials(fleet().ca), "certificate required", "peer did not return a certificate"),
            (of_another_authority(), "unknown ca", "unable to get local issuer certificate"),
            (None, "it speaks TLS: give --tls-ca", "what it speaks is not TLS"),
        ):
            refusal = test_who_has_no_good_certificate_is_refused_and_both_sides_say_why
            runner.run(refusal(lambda given=credentials: given, client_says, server_says, caplog))  # type: ignore[misc]
        runner.run(test_a_server_without_a_good_certificate_is_not_trusted(Fleet().tls, "unable to get local issuer", "unknown ca", caplog))
        runner.run(test_whoever_stops_or_hangs_in_the_handshake_harms_nobody(monkeypatch, caplog))
        runner.run(test_a_server_closes_those_in_the_handshake_too())


async def test_connections_count_from_the_first_byte() -> None:
    async with serving(fleet().tls(), connections=3) as server:
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(4)]
        await until(lambda: server.refused["connections"] == 1)
        for _, writer in idle:
            writer.close()
        await until(lambda: server.refused["tls"] == 3)
        async with client(server, Credentials(fleet().ca)) as asking:
            assert (await asking.status()).version == "echo"


async def test_a_server_closes_those_in_the_handshake_too() -> None:
    async with serving(fleet().tls()) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await until(lambda: len(server._server.handshakes) == 1)  # type: ignore[union-attr]
        await server.close()
        async with asyncio.timeout(LIMIT_S):
            assert await reader.read() == b""
        writer.close()


async def shown(server: GrpcServer, ca: Path) -> int:
    """The serial number of the certificate that a new connection gets."""
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=Credentials(ca).context())
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return int(serial, 16)


async def test_a_new_certificate_is_for_new_connections_and_streams_go_on(mine: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(mine.tls()) as server, client(server, Credentials(mine.ca)) as before, before.subscribe() as events:
        first = await shown(server, mine.ca)
        assert await shown(server, mine.ca) == first
        mine.authority.renew("server", None)
        assert await shown(server, mine.ca) != first
        assert "the certificates were read again" in caplog.messages
        assert (await before.status()).version == "echo"
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        assert not waiting.done()  # the stream is open, and has nothing to tell
        waiting.cancel()


async def test_files_that_are_no_good_change_nothing_until_they_are(mine: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    tls = mine.tls()
    cert, key = mine.directory / "server.pem", mine.directory / "server.key"
    async with serving(tls) as server:
        first = await shown(server, mine.ca)
        old = key.read_bytes()
        mine.authority.renew("server", None)
        good = key.read_bytes()
        key.write_bytes(old)  # as when the certificate has been replaced, and its key not yet
        assert await shown(server, mine.ca) == first
        assert "the certificates stay as they were" in caplog.messages[-1]
        assert "do not belong together" in caplog.messages[-1]
        cert_bytes = cert.read_bytes()
        cert.unlink()
        assert await shown(server, mine.ca) == first
        assert str(cert) in caplog.messages[-1]
        cert.write_bytes(cert_bytes)
        key.write_bytes(good)
        assert await shown(server, mine.ca) != first


async def test_a_revoked_certificate_is_refused_from_then_on(mine: Fleet) -> None:
    node, other = mine.client(Role.NODE, "n1"), mine.client(Role.NODE, "n2")
    async with serving(mine.tls(mutual=True)) as server:
        async with client(server, node) as asking:
            await asking.status()
        mine.authority.revoke("node-n1")
        with pytest.raises(Unreachable, match="certificate revoked"):
            async with client(server, node) as asking:
                await asking.status()
        async with client(server, other) as asking:
            await asking.status()
        mine.authority.renew("node-n1", None)
        async with client(server, node) as asking:
            await asking.status()


async def test_a_client_reads_its_files_for_each_connection(mine: Fleet) -> None:
    node = mine.client(Role.NODE, "n1")
    tls = mine.tls(mutual=True)
    asking = Client(port=1, credentials=node)
    async with serving(tls) as server:
        asking._address = "127.0.0.1", server.port
        async with asking:
            await asking.status()
            mine.authority.revoke("node-n1")
            mine.authority.renew("node-n1", None)
        async with asking:
            await asking.status()


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        (lambda d: Credentials(d / "none"), "none: No such file"),
        (lambda d: Credentials(fleet().server()[1]), "holds no certificates of authorities"),
        (lambda d: Credentials(fleet().ca, d / "none.pem"), "none.pem: No such file"),
        (lambda d: Credentials(fleet().ca, fleet().ca), "no certificate with its key"),
        (lambda d: Credentials(fleet().ca, fleet().ca, fleet().server()[1]), "do not belong together"),
        (lambda d: Credentials(tls_cert=fleet().ca), "give --tls-ca"),
        (lambda d: Credentials(fleet().ca, tls_key=fleet().ca), "goes with --tls-cert"),
    ],
)
async def test_files_that_a_client_cannot_use(credentials: Callable[[Path], Credentials], says: str, tmp_path: Path) -> None:
    async with serving(fleet().tls()) as server:
        with pytest.raises(CredentialsUnusable, match=says) as failure:
            async with client(server, credentials(tmp_path)):
                pass
    assert "PRIVATE" not in str(failure.value)


def test_an_encrypted_key_is_not_asked_about_at_the_terminal(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    cert, plain = fleet().server()
    key = serialization.load_pem_private_key(plain.read_bytes(), None)
    locked = tmp_path / "locked.key"
    encryption = serialization.BestAvailableEncryption(b"hunter2")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    with pytest.raises(CredentialsUnusable, match="encrypted"):
        ServerTls(cert, locked)


async def test_the_machines_own_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(fleet().tls()) as server:
        with pytest.raises(Unreachable, match="unable to get local issuer"):
            async with client(server, Credentials(SYSTEM)):
                pass
        monkeypatch.setenv("SSL_CERT_FILE", str(fleet().ca))
        async with client(server, Credentials(SYSTEM)) as asking:
            await asking.status()


async def test_a_token_goes_to_another_machine_encrypted_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("isk_x\n")
    with pytest.raises(Unreachable, match="encrypted only"):
        await Client("192.0.2.1", insecure=True, credentials=Credentials(token_file=tmp_path / "token")).__aenter__()


@pytest.mark.parametrize(
    ("tls", "access", "says"), [(False, False, "--tls-cert"), (True, False, "--tls-client-ca or --tokens"), (False, True, "--tls-cert")]
)
def test_beyond_loopback_there_is_tls_and_access_control_or_it_is_asked_for_by_name(tls: bool, access: bool, says: str) -> None:
    given = {"tls": fleet().tls() if tls else None, "access": Open() if access else None}
    with pytest.raises(CannotListen, match=says):
        GrpcServer([Echo()], "0.0.0.0", **given)
    GrpcServer([Echo()], "0.0.0.0", insecure_listen=True, **given)
    GrpcServer([Echo()], "0.0.0.0", tls=fleet().tls(), access=Open())


async def test_a_second_authority_can_be_trusted_while_the_first_is_replaced(mine: Fleet, tmp_path_factory: pytest.TempPathFactory) -> None:
    new = Fleet(tmp_path_factory.mktemp("new"))
    both, both_clients = mine.directory / "both.pem", mine.directory / "both-clients.pem"
    both.write_bytes(mine.ca.read_bytes() + new.ca.read_bytes())
    both_clients.write_bytes(mine.clients.read_bytes() + new.clients.read_bytes())
    for issuer in (mine, new):
        async with serving(ServerTls(*issuer.server(), both_clients)) as server:
            for holder in (mine, new):
                async with client(server, dataclasses.replace(holder.client(Role.NODE, "n"), tls_ca=both)) as asking:
                    await asking.status()


async def test_complaints_cannot_fill_the_log(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(complaints, "PER_S", 3)
    monkeypatch.setattr("infrasight.wire.complaints.time.monotonic", lambda: 1e9)
    complain = complaints._Complaints().add
    for number in range(100):
        complain("refused %s", number)
    assert len(caplog.messages) == 3
    monkeypatch.setattr("infrasight.wire.complaints.time.monotonic", lambda: 1e9 + 1)
    complain("refused %s", 100)
    assert caplog.messages[3:] == ["97 more were refused in that second", "refused 100"]


def test_hosts_may_be_addresses_and_names() -> None:
    cert, _ = fleet().authority.issue(Subject("hosts", hosts=("a.example", "::1", "10.0.0.1")), 1, anew=True)
    found = next(each for each in fleet().authority.found() if each.file == cert)
    assert found.names == ("a.example", "::1", "10.0.0.1")


