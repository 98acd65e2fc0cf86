"""Who may do what: certificates, tokens, roles, and nodes' names."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from infrasight.client import Client, Credentials
from infrasight.errors import AccessDenied, CannotListen, CredentialsUnusable, QueryRefused, Unauthenticated, Unreachable
from infrasight.server.access import Known, Tokens, admission
from infrasight.server.settings import Settings
from infrasight.wire import Hello
from infrasight.wire.access import Principal, Role, of_certificate, uri
from infrasight.wire.service import Service
from infrasight.wire.status import DENIED, from_grpc, to_grpc
from tests.server.running import HELLO, OK, MemoryStore, Running, message, ship
from tests.waiting import until
from tests.wire.certificates import Fleet, fleet
from tests.wire.echo import Echo

OTHER = Hello(node="other", version="1", boot_id="b00-7", epoch=7)


def certified() -> Running:
    return Running(MemoryStore(), tls=fleet().tls(mutual=True), access=Known(None))


class TokenFile:
    """A server's file of tokens, and those of clients."""

    def __init__(self, directory: Path) -> None:
        self.file, self._directory, self.lines = directory / "tokens", directory, [""]
        self.save()

    def add(self, role: str, name: str, secret: str = "") -> Credentials:
        """A token that the server knows."""
        credentials = self.unknown(secret or f"isk_{role}-{name}")
        digest = hashlib.sha256((secret or f"isk_{role}-{name}").encode()).hexdigest()
        self.lines.append(f"{digest} {role} {name}")
        self.save()
        return credentials

    def unknown(self, secret: str) -> Credentials:
        """A token that the server does not know, unless it was added."""
        file = self._directory / hashlib.sha256(secret.encode()).hexdigest()[:16]
        file.write_text(secret + "\n")
        return Credentials(token_file=file)

    def save(self, *more: str) -> None:
        """Replace the server's file."""
        scratch = self._directory / "scratch"
        scratch.write_text("\n".join(["# whose   they are", *self.lines, *more, ""]))
        scratch.replace(self.file)


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path)


async def asks(client: Client) -> None:
    await client.status()
    assert [chunk async for chunk in client.query("SELECT 1")]
    async with client.subscribe():
        pass


async def test_a_node_ships_under_the_name_in_its_certificate_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with certified() as running, running.client(fleet().client(Role.NODE, "n1")) as node:
        assert [ack.verdict for ack in await ship(node, message(1))] == [OK]
        with pytest.raises(AccessDenied, match="node 'n1' may not ship as 'other'") as refusal:
            await ship(node, message(2), hello=OTHER)
        assert "\n" not in str(refusal.value)
        assert running.grpc.refused == {"access": 1}
        assert running.store.rows() == 10
        assert [each.hello.node for each in running.server.nodes] == ["n1"]
        assert any("refused 127.0.0.1:" in line and "may not ship as 'other'" in line for line in caplog.messages)


async def test_a_stream_goes_on_while_certificates_change(tmp_path: Path) -> None:
    mine = Fleet(tmp_path)
    credentials = mine.client(Role.NODE, "n1")
    async with Running(MemoryStore(), tls=mine.tls(mutual=True), access=Known(None)) as running, running.client(credentials) as node:
        async with node.ship(HELLO) as shipment:
            await shipment.send(message(1))
            assert (await anext(shipment)).verdict == OK
            mine.authority.renew("server", None)
            mine.authority.revoke("node-n1")
            with pytest.raises(Unreachable, match="certificate revoked"):
                async with running.client(credentials) as again:
                    await ship(again, message(2))
            for seq in range(3, 50):
                await shipment.send(message(seq))
                assert (await anext(shipment)).verdict == OK
        assert running.store.rows() == 480


async def test_a_node_may_only_ship() -> None:
    async with certified() as running, running.client(fleet().client(Role.NODE, "n1")) as node:
        for forbidden in (node.status(), anext(node.query("SELECT 1")), node.subscribe().__aenter__()):
            with pytest.raises(AccessDenied, match="node 'n1' may not ask for events"):
                await forbidden


async def test_a_reader_may_ask_and_not_ship() -> None:
    async with certified() as running, running.client(fleet().client(Role.READER, "ann")) as reader:
        await asks(reader)
        with pytest.raises(AccessDenied, match="reader 'ann' may not ship events"):
            await ship(reader, message(1))
        assert running.store.rows() == 0


async def test_an_admin_may_do_everything() -> None:
    async with certified() as running, running.client(fleet().client(Role.ADMIN, "root")) as admin:
        await asks(admin)
        assert [ack.verdict for ack in await ship(admin, message(1), hello=OTHER)] == [OK]


async def test_a_certificate_of_another_authority_that_knows_no_roles_is_a_nodes() -> None:
    """Its DNS names, and those only."""
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    mine = Fleet()
    authority = mine.authority
    patched = pytest.MonkeyPatch()
    patched.setattr("infrasight.cli.authority.ExtendedKeyUsageOID.SERVER_AUTH", ExtendedKeyUsageOID.CLIENT_AUTH)
    patched.setattr("infrasight.cli.authority._names", lambda subject: [x509.DNSName(host) for host in subject.hosts])
    files = mine.server("n1", "n1.example", name="node")
    patched.undo()
    async with Running(MemoryStore(), tls=mine.tls(mutual=True), access=Known(None)) as running, running.client(Credentials(mine.ca, *files)) as node:
        assert await ship(node, message(1))
        assert await ship(node, message(1), hello=dataclasses.replace(HELLO, node="n1.example"))
        with pytest.raises(AccessDenied):
            await ship(node, message(1), hello=dataclasses.replace(HELLO, node="N1"))
    assert authority.directory == mine.directory


def san(*names: tuple[str, str]) -> dict[str, object]:
    return {"subject": ((("commonName", "admin"),),), "subjectAltName": names}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([("URI", uri(Role.NODE, "n1"))], (Role.NODE, {"n1"})),
        ([("URI", uri(Role.NODE, "a/b c:ž"))], (Role.NODE, {"a/b c:ž"})),
        ([("URI", uri(Role.NODE, "a")), ("URI", uri(Role.NODE, "b"))], (Role.NODE, {"a", "b"})),
        ([("URI", uri(Role.READER, "ann"))], (Role.READER, None)),
        ([("URI", "spiffe://prod.example/infrasight/admin/bob"), ("DNS", "n1")], (Role.ADMIN, None)),
        ([("DNS", "n1"), ("DNS", "*.example"), ("IP Address", "10.0.0.1")], (Role.NODE, {"n1"})),
        ([("URI", "https://x/infrasight/admin/bob"), ("DNS", "n1")], (Role.NODE, {"n1"})),
        ([("URI", "spiffe://x/ns/infrasight/admin/bob"), ("DNS", "n1")], (Role.NODE, {"n1"})),
        ([("URI", uri(Role.NODE, "a")), ("URI", uri(Role.ADMIN, "a"))], None),
        ([("URI", uri(Role.READER, "a")), ("URI", uri(Role.ADMIN, "a"))], None),
        ([("URI", "spiffe://x/infrasight/root/bob")], None),
        ([("URI", "spiffe://x/infrasight/node/")], None),
        ([("DNS", "*")], None),
        ([("IP Address", "10.0.0.1")], None),
        ([("DNS", "n1\n")], None),
        ([("URI", "spiffe://[x/infrasight/node/a")], None),
        ([], None),
    ],
)
def test_what_a_certificate_says(names: list[tuple[str, str]], expected: tuple[Role, set[str] | None] | None) -> None:
    principal = of_certificate(san(*names))
    assert (principal and (principal.role, principal.names and set(principal.names))) == expected


async def test_two_readers_roles_are_one_too_many() -> None:
    with pytest.raises(Unauthenticated, match="neither one role nor"):
        Known(None).admit(san(("IP Address", "10.0.0.1")), "")


async def test_tokens_do_in_place_of_certificates_over_tls(tokens: TokenFile) -> None:
    node, reader = tokens.add("node", "n1"), tokens.add("reader", "ann")
    async with Running(MemoryStore(), tls=fleet().tls(), access=Known(Tokens(tokens.file))) as running:
        async with running.client(dataclasses.replace(node, tls_ca=fleet().ca)) as client:
            assert await ship(client, message(1))
        async with running.client(dataclasses.replace(reader, tls_ca=fleet().ca)) as client:
            await asks(client)


async def test_each_token_is_good_for_its_own(tokens: TokenFile) -> None:
    node, any_node, reader, admin = (tokens.add(*each) for each in (("node", "n1"), ("node", "*"), ("reader", "ann"), ("admin", "root")))
    async with Running(MemoryStore(), access=Known(Tokens(tokens.file))) as running:
        async with running.client(node) as client:
            assert await ship(client, message(1))
            with pytest.raises(AccessDenied, match="node 'n1' may not ship as 'other'"):
                await ship(client, message(1), hello=OTHER)
            with pytest.raises(AccessDenied, match="may not ask"):
                await client.status()
        async with running.client(any_node) as client:
            assert await ship(client, message(1), hello=OTHER)
        async with running.client(reader) as client:
            await asks(client)
            with pytest.raises(AccessDenied, match="may not ship"):
                await ship(client, message(1))
        async with running.client(admin) as client:
            await asks(client)
            assert await ship(client, message(1), hello=OTHER)


@pytest.mark.parametrize("secret", ["", "isk_wrong", "isk_node-n1x", "isk_node-n", "x" * 4000])
async def test_without_a_known_token_nothing_goes(secret: str, tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    tokens.add("node", "n1")
    credentials = tokens.unknown(secret) if secret else None
    async with Running(MemoryStore(), access=Known(Tokens(tokens.file))) as running, running.client(credentials) as client:
        says = "that token is not known here" if secret else "a token is needed: --token-file"
        for forbidden in (client.status, lambda: anext(client.query("SELECT 1")), client.subscribe().__aenter__, lambda: ship(client, message(1))):
            with pytest.raises(Unauthenticated, match=says):
                await forbidden()
        await until(lambda: running.grpc.refused == {"access": 4})
        assert not (secret and secret in caplog.text)


async def test_tokens_are_read_again_when_they_change(tokens: TokenFile, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first = tokens.add("reader", "ann")
    async with Running(MemoryStore(), access=Known(Tokens(tokens.file))) as running:
        second = tokens.unknown("isk_reader-bob")
        async with running.client(second) as bob, running.client(first) as ann, ann.subscribe():
            with pytest.raises(Unauthenticated):
                await bob.status()
            tokens.add("reader", "bob")
            await bob.status()
            assert "the tokens were read again: there are 2" in caplog.messages
            del tokens.lines[1]
            tokens.save()
            with pytest.raises(Unauthenticated):
                await ann.status()
            await bob.status()
            tokens.save("isk_somebody-put-the-token-itself-here reader ann")
            await bob.status()
            assert "line 4 is not" in caplog.text
            assert "isk_somebody" not in caplog.text
            tokens.file.unlink()
            await bob.status()
            assert caplog.text.count("the tokens stay as they were") == 2


async def test_a_client_reads_its_token_for_each_call(tokens: TokenFile) -> None:
    tokens.add("reader", "ann", "isk_new")
    credentials = tokens.unknown("isk_old")
    assert credentials.token_file is not None
    async with Running(MemoryStore(), access=Known(Tokens(tokens.file))) as running, running.client(credentials) as client:
        with pytest.raises(Unauthenticated):
            await client.status()
        credentials.token_file.write_text("isk_new")
        await client.status()


@pytest.mark.parametrize("content", ["", "two words", "two\nlines", "\x00", "x" * 5000, "ž"])
async def test_a_token_file_that_holds_no_token(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    async with Running(MemoryStore()) as running, running.client(Credentials(token_file=file)) as client:
        with pytest.raises(CredentialsUnusable, match="not one token in one line") as failure:
            await client.status()
    assert not content or content not in str(failure.value)


async def test_the_certificate_counts_where_there_is_a_token_too(tokens: TokenFile) -> None:
    token = tokens.add("admin", "root")
    access = Known(Tokens(tokens.file))
    async with Running(MemoryStore(), tls=fleet().tls(optional=True), access=access) as running:
        async with running.client(dataclasses.replace(token, tls_ca=fleet().ca)) as client:
            await client.status()
        both = dataclasses.replace(fleet().client(Role.NODE, "n1"), token_file=token.token_file)
        async with running.client(both) as client:
            with pytest.raises(AccessDenied, match="node 'n1' may not ask"):
                await client.status()
        foreign = dataclasses.replace(Fleet().client(Role.NODE, "n1"), tls_ca=fleet().ca, token_file=token.token_file)
        with pytest.raises(Unreachable, match="unknown ca"):
            async with running.client(foreign) as client:
                await client.status()


@pytest.mark.parametrize(
    "line", ["x", "0" * 64, "0" * 64 + " node", "0" * 63 + " node n1", "0" * 64 + " root n1", "0" * 64 + " node n1 x", "G" * 64 + " node n1"]
)
def test_a_line_that_is_none_is_named_and_not_repeated(line: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"# fine\n\n{line}\n")
    with pytest.raises(CredentialsUnusable, match="line 3 is not") as failure:
        Tokens(tmp_path / "tokens")
    assert line == "x" or line not in str(failure.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_of_tokens_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    if content:
        (tmp_path / "tokens").write_bytes(content)
    with pytest.raises(CredentialsUnusable, match="tokens"):
        Tokens(tmp_path / "tokens")


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        (lambda d: Settings(tls_key=d / "x"), CredentialsUnusable, "go with --tls-cert"),
        (lambda d: Settings(tls_client_ca=d / "x"), CredentialsUnusable, "go with --tls-cert"),
        (lambda d: Settings(tls_cert=d / "x"), CredentialsUnusable, "No such file"),
        (lambda d: Settings(tokens=d / "x"), CredentialsUnusable, "No such file"),
        (lambda d: Settings(tokens=d / "tokens", server_addr="0.0.0.0", insecure_listen=True), CannotListen, "in the clear"),
    ],
)
def test_settings_that_make_no_sense(settings: Callable[[Path], Settings], error: type[Exception], says: str, tokens: TokenFile) -> None:
    with pytest.raises(error, match=says):
        admission(settings(tokens.file.parent))


def test_loopback_without_anything_is_the_only_default() -> None:
    assert admission(Settings()) == (None, None)


def test_a_new_service_is_for_admins_until_it_says_for_whom() -> None:
    assert Service.roles == frozenset()
    assert Echo.roles == {Role.READER}


@pytest.mark.parametrize("error", [AccessDenied("x may not"), Unauthenticated("who?")])
def test_a_refusal_comes_back_as_what_it_was(error: AccessDenied) -> None:
    back = from_grpc(to_grpc(error), "there")
    assert type(back) is type(error)
    assert str(back).removeprefix(DENIED) == str(error)


def test_a_query_that_was_refused_is_another_matter() -> None:
    assert not isinstance(from_grpc(to_grpc(QueryRefused("no")), "there"), AccessDenied)


def test_any_node_may_be_said() -> None:
    Principal(Role.NODE, "node '*'").check_node("whichever")
