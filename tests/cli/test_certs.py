"""`infrasight certs`: what it makes is what openssl and a server take, and nothing is given away or overwritten."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infrasight.cli.main import main
from infrasight.client import Client, Credentials
from infrasight.server.access import Known, Tokens
from infrasight.wire.tls import ServerTls
from tests.server.running import MemoryStore, Running, message, ship


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The directory of an authority that has been made."""
    monkeypatch.setenv("INFRASIGHT_CERTS", str(tmp_path / "certs"))
    assert main(["certs", "init"]) == 0
    capsys.readouterr()
    return tmp_path / "certs"


def certs(*argv: str) -> int:
    return main(["certs", *argv])


def openssl(*argv: str | Path) -> str:
    return subprocess.run(["openssl", *argv], capture_output=True, text=True, check=False).stdout


def test_keys_and_tokens_are_for_their_owner_only(fleet: Path) -> None:
    for words in (["server", "a.example"], ["node", "n1"], ["user", "ann"], ["token", "bob"]):
        assert certs(*words) == 0
    modes = {file.name: file.stat().st_mode & 0o777 for file in fleet.iterdir()}
    assert fleet.stat().st_mode & 0o777 == 0o700
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        *("ca.key", "server-a.example.key", "node-n1.key", "reader-ann.key", "token-reader-bob", "tokens"),
    }
    assert {name for name, mode in modes.items() if mode == 0o644} == {
        *("ca.pem", "clients.pem", "server-a.example.pem", "node-n1.pem", "reader-ann.pem"),
    }
    assert len(modes) == 11


@pytest.mark.needs("openssl")
def test_openssl_takes_them_for_what_they_are_and_nothing_else(fleet: Path) -> None:
    for words in (["server", "a.example,10.0.0.1,::1"], ["node", "n1"], ["user", "ann", "--role", "admin"]):
        assert certs(*words) == 0
    ca = fleet / "ca.pem"
    server, node, admin = (fleet / f"{name}.pem" for name in ("server-a.example", "node-n1", "admin-ann"))
    for file, purpose in [(server, "sslserver"), (node, "sslclient"), (admin, "sslclient")]:
        assert openssl("verify", "-x509_strict", "-CAfile", ca, "-purpose", purpose, file) == f"{file}: OK\n"
        other = "sslclient" if purpose == "sslserver" else "sslserver"
        assert "OK" not in openssl("verify", "-CAfile", ca, "-purpose", other, file)
        assert "OK" not in openssl("verify", "-CAfile", file, "-partial_chain", node if file is server else server)  # it signs nothing
    assert "OK" in openssl("verify", "-CAfile", ca, "-verify_hostname", "a.example", server)
    assert "OK" in openssl("verify", "-CAfile", ca, "-verify_ip", "10.0.0.1", server)
    assert "OK" in openssl("verify", "-CAfile", ca, "-verify_ip", "::1", server)
    assert "OK" not in openssl("verify", "-CAfile", ca, "-verify_hostname", "b.example", server)
    assert certs("revoke", "node-n1") == 0
    revoked = ["verify", "-x509_strict", "-crl_check", "-CAfile", fleet / "clients.pem"]
    assert openssl(*revoked, admin) == f"{admin}: OK\n"
    assert "OK" not in openssl(*revoked, node)
    assert "URI:spiffe://fleet/infrasight/node/n1" in openssl("x509", "-in", node, "-noout", "-ext", "subjectAltName")
    assert "URI:spiffe://fleet/infrasight/admin/ann" in openssl("x509", "-in", admin, "-noout", "-ext", "subjectAltName")


@pytest.mark.needs("openssl")
@pytest.mark.parametrize(
    ("words", "file", "days"), [(["server", "h"], "server-h", 365), (["node", "n"], "node-n", 365), (["user", "u"], "reader-u", 90)]
)
def test_lifetimes(fleet: Path, words: list[str], file: str, days: int) -> None:
    assert certs(*words) == 0
    assert _lasts(fleet / f"{file}.pem", days)
    assert certs("renew", file, "--days=7") == 0
    assert _lasts(fleet / f"{file}.pem", 7)
    assert certs("renew", f"{file}.pem") == 0
    assert _lasts(fleet / f"{file}.pem", 7)
    assert certs("renew", file, "--days=36500") == 0
    assert _lasts(fleet / f"{file}.pem", 3650)  # as the authority


def _lasts(file: Path, days: int) -> bool:
    """Whether it ends in so many days, to within an hour."""
    ends = [openssl("x509", "-in", file, "-noout", "-checkend", str(days * 86400 + slack)) for slack in (-3600, 3600)]
    return "will not expire" in ends[0] and "will expire" in ends[1]


async def test_a_fleet_as_the_documentation_makes_it(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["server", "127.0.0.1,localhost"], ["node", "n1"], ["user", "ann"], ["token", "bob"], ["token", "n1", "--role", "node"]):
        assert certs(*words) == 0
    capsys.readouterr()
    tls = ServerTls(fleet / "server-127.0.0.1.pem", fleet / "server-127.0.0.1.key", fleet / "clients.pem", optional=True)
    async with Running(MemoryStore(), tls=tls, access=Known(Tokens(fleet / "tokens"))) as running:

        def client(cert: str = "", token: str = "") -> Client:
            files = (fleet / f"{cert}.pem", fleet / f"{cert}.key") if cert else (None, None)
            return running.client(Credentials(fleet / "ca.pem", *files, token_file=fleet / token if token else None))

        for node in (client("node-n1"), client(token="token-node-n1")):
            async with node:
                assert await ship(node, message(1))
        for person in (client("reader-ann"), client(token="token-reader-bob")):
            async with person:
                await person.status()


def test_nothing_is_overwritten(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["node", "n1"], ["token", "bob"]):
        assert certs(*words) == 0
    before = {file: file.read_bytes() for file in fleet.iterdir()}
    for words in (["init"], ["node", "n1"], ["token", "bob"]):
        assert certs(*words) == 1
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert "is there already" in said[0]
    assert {file: file.read_bytes() for file in fleet.iterdir()} == before


def test_no_secret_is_printed(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["token", "bob"], ["token", "n1", "--role=node"], ["show"], ["revoke", "token-node-n1"]):
        assert certs(*words) == 0
    said = capsys.readouterr()
    token = (fleet / "token-reader-bob").read_text().strip()
    assert re.fullmatch(r"isk_[\w-]{43}", token)
    assert "isk_" not in said.out + said.err
    assert hashlib.sha256(token.encode()).hexdigest() not in said.out + said.err
    assert (fleet / "tokens").read_text() == f"{hashlib.sha256(token.encode()).hexdigest()} reader bob\n"


def test_tokens_are_all_different_and_need_no_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "infrasight.cli.authority", raising=False)
    monkeypatch.setenv("INFRASIGHT_CERTS", str(tmp_path / "new"))
    for name in "abc":
        assert certs("token", name) == 0
    assert len({(tmp_path / "new" / f"token-reader-{name}").read_text() for name in "abc"}) == 3
    assert certs("show") == 0


def test_without_cryptography_it_says_what_to_install(fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.delitem(sys.modules, "infrasight.cli.authority", raising=False)
    for words in (["init"], ["server", "a"], ["node", "n"], ["user", "u"], ["renew", "node-n"], ["revoke", "node-n"], ["show"]):
        assert certs(*words) == 1
        assert capsys.readouterr().err == (
            "infrasight: certificates are made with the Python package cryptography: pip install 'infrasight[server]'\n"
        )


def test_show_tells_what_is_good_and_until_when(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["node", "n1"], ["node", "n2"], ["token", "*", "--role=node"], ["revoke", "node-n2"]):
        assert certs(*words) == 0
    capsys.readouterr()
    assert certs("show") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [re.sub(r"fleet [0-9a-f]{8}", "fleet NUMBER", re.sub(r"\d{4}-\d\d-\d\d", "DAY", " ".join(line.split()))) for line in lines] == [
        "ca until DAY good InfraSight fleet NUMBER",
        "node-n1 until DAY good spiffe://fleet/infrasight/node/n1",
        "node-n2 until DAY revoked spiffe://fleet/infrasight/node/n2",
        "token-node-%2A a token",
    ]


def test_show_fails_when_something_has_expired(fleet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import datetime

    from infrasight.cli.authority import Authority, Subject

    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    Authority.load(fleet).issue(Subject("server-old", hosts=("old",)), 1, begins=long_ago)
    assert certs("show") == 1
    assert "expired" in capsys.readouterr().out


async def test_what_is_revoked_counts_no_more(fleet: Path) -> None:
    for words in (["server", "127.0.0.1"], ["token", "ann"], ["token", "bob"]):
        assert certs(*words) == 0
    tokens = Tokens(fleet / "tokens")
    ann, bob = ((fleet / f"token-reader-{name}").read_text().strip() for name in ("ann", "bob"))
    (fleet / "token-reader-ann").unlink()  # it has been handed out
    assert certs("revoke", "token-reader-ann") == 0
    assert tokens.principal(ann) is None
    assert tokens.principal(bob) is not None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["node", "a b"], "is no name"),
        (["node", "a:b"], "is no name"),
        (["node", ".."], "is no name"),
        (["node", ""], "is no name"),
        (["node", "x" * 254], "is no name"),
        (["user", "a\nb"], "is no name"),
        (["token", "*"], "is no name"),
        (["server", ""], "at least one host"),
        (["server", "a..b"], "no host's name"),
        (["server", "*.example"], "no host's name"),
        (["server", "a b"], "no host's name"),
        (["renew", "node-none"], "node-none.pem"),
        (["renew", ""], "which certificates"),
        (["renew", "../x"], "only the name"),
        (["revoke", "node-none"], "node-none.pem"),
    ],
)
def test_what_cannot_be_is_one_line(fleet: Path, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(fleet.iterdir())
    assert certs(*words) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert says in said[0]
    assert sorted(fleet.iterdir()) == before


def test_odd_names_stay_in_the_directory(fleet: Path) -> None:
    assert certs("node", "a/../b") == 0
    assert (fleet / "node-a%2F..%2Fb.pem").exists()
    assert certs("renew", "node-a%2F..%2Fb") == 0


@pytest.mark.parametrize("words", [["node", "n"], ["renew", "n"], ["revoke", "n"]])
def test_without_an_authority_it_says_how_to_make_one(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert certs(*words, "--dir", str(tmp_path)) == 1
    assert "ca.pem" in capsys.readouterr().err


def test_an_authoritys_key_is_its_own(fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert certs("init", "--dir", str(tmp_path / "other")) == 0
    (fleet / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    assert certs("node", "n") == 1
    assert "ca.key is not the key of ca.pem" in capsys.readouterr().err
    (fleet / "ca.key").write_text("rubbish")
    assert certs("node", "n") == 1
    assert "holds no key" in capsys.readouterr().err


def test_certificates_of_another_authority_are_left_alone(fleet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    for words in (["init"], ["node", "n"]):
        assert certs(*words, "--dir", str(other)) == 0
    (fleet / "node-n.pem").write_bytes((other / "node-n.pem").read_bytes())
    for action in ("renew", "revoke"):
        assert certs(action, "node-n") == 1
        assert "is not of the authority" in capsys.readouterr().err
    assert certs("show") == 0
    assert "of another authority" in capsys.readouterr().out


def test_help_of_a_group_and_of_an_action(capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in ((["certs", "--help"], "init"), (["certs", "node", "--help"], "INFRASIGHT_CERTS")):
        with pytest.raises(SystemExit):
            main(words)
        assert says in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main(["certs"])


@pytest.mark.parametrize("module", ["infrasight.server.program", "infrasight.node.__main__", "infrasight.client", "infrasight.cli.query"])
def test_neither_node_nor_server_loads_cryptography(module: str) -> None:
    code = f"import sys, {module}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


