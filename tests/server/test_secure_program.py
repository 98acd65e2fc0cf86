"""A server that other machines may reach, as people run it, with the commands that ask it: and no secret in what anybody can see."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infrasight.cli.main import main
from infrasight.client import Client, Credentials
from infrasight.errors import Unauthenticated
from infrasight.wire import Hello
from tests.server.running import message, ship
from tests.server.test_program import Process, refused, server
from tests.waiting import LIMIT_S


@pytest.fixture
def certs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """What `infrasight certs` makes for a server on loopback, the node n1 and the reader ann."""
    made = tmp_path / "certs"
    for words in (["init"], ["server", "127.0.0.1"], ["node", "n1"], ["user", "ann"], ["token", "bob"], ["token", "n1", "--role=node"]):
        assert main(["certs", *words, "--dir", str(made)]) == 0
    capsys.readouterr()
    return made


def told(certs: Path) -> list[str]:
    """What the server is told."""
    files = {"--tls-cert": "server-127.0.0.1.pem", "--tls-key": "server-127.0.0.1.key", "--tls-client-ca": "clients.pem", "--tokens": "tokens"}
    return [f"{flag}={certs / name}" for flag, name in files.items()]


async def command(*words: str, **environ: str) -> tuple[int, str, str]:
    """Run `infrasight WORDS...`: exit status, output, errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("INFRASIGHT_", "SERVER_"))}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "infrasight.cli.main", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean | environ
    )
    async with asyncio.timeout(LIMIT_S):
        out, said = await child.communicate()
    assert child.returncode is not None
    return child.returncode, out.decode(), said.decode()


async def test_everybody_gets_what_is_theirs_over_tls(tmp_path: Path, certs: Path) -> None:
    async with server(tmp_path, *told(certs)) as process:
        where = ["--server-port", str(process.port)]
        ca = ["--tls-ca", str(certs / "ca.pem")]
        ann = [*ca, "--tls-cert", str(certs / "reader-ann.pem"), "--tls-key", str(certs / "reader-ann.key")]
        node = Credentials(certs / "ca.pem", certs / "node-n1.pem", certs / "node-n1.key")
        async with Client(port=process.port, credentials=node) as client:
            assert await ship(client, message(1), hello=Hello(node="n1", version="1", boot_id="b", epoch=1))

        assert await command("query", "SELECT count() AS n FROM open", "-o", "csv", *where, *ann) == (0, '"n"\n10\n', "")
        variables = {"INFRASIGHT_TLS_CA": str(certs / "ca.pem"), "INFRASIGHT_TOKEN_FILE": str(certs / "token-reader-bob")}
        status, out, said = await command("events", "-n", "3", "-o", "json", *where, **variables)
        assert (status, len(out.splitlines()), said) == (0, 3, "")
        _, out, _ = await command("doctor", *where, **variables)
        assert "ok    server" in out

        status, out, said = await command("query", "SELECT 1", *where, *ca)
        assert (status, out) == (1, "")
        assert said == "infrasight: a token is needed: --token-file\n"
        status, _, said = await command("query", "SELECT 1", *where, *ca, "--token-file", str(certs / "token-node-n1"))
        assert (status, said) == (1, "infrasight: access denied: node 'n1' may not ask for events\n")
        status, _, said = await command("query", "SELECT 1", *where)
        assert status == 1
        assert "it speaks TLS: give --tls-ca" in said
        assert said.count("\n") == 1

        secrets = [(certs / f"token-{name}").read_text().strip() for name in ("reader-bob", "node-n1")]
        seen = b"".join((Path("/proc") / str(process.child.pid) / name).read_bytes() for name in ("cmdline", "environ"))
        status, said = await process.end(signal.SIGTERM)
        assert status == 0
        for secret in secrets:
            assert secret not in said + "".join(process.said)
            assert secret.encode() not in seen
        assert "refused 127.0.0.1:" in said
        (tmp_path / "kept").mkdir()
        (tmp_path / "kept" / "store").symlink_to(tmp_path / "data")
        there = ["--data-dir", str(tmp_path / "kept")]
        assert await command("query", "SELECT count() AS n FROM open", "-o", "csv", *there, **variables) == (0, '"n"\n10\n', "")
        assert "Traceback" not in said


async def test_a_log_with_everything_in_it_has_no_token(tmp_path: Path, certs: Path) -> None:
    """Also not those that are wrong, which may be somebody's for another server."""
    (tmp_path / "wrong").write_text("isk_wrong-and-secret")
    async with server(tmp_path, *told(certs), "--log-level=debug") as process:
        for file in (certs / "token-reader-bob", tmp_path / "wrong"):
            async with Client(port=process.port, credentials=Credentials(certs / "ca.pem", token_file=file)) as client:
                with contextlib.suppress(Unauthenticated):
                    await client.status()
        status, said = await process.end(signal.SIGTERM)
    assert status == 0
    assert " DEBUG " in said
    assert "that token is not known here" in said
    for secret in ((certs / "token-reader-bob").read_text().strip(), "isk_wrong-and-secret"):
        assert secret not in said
        assert hashlib.sha256(secret.encode()).hexdigest() not in said


async def test_wherever_it_listens_the_same_holds(tmp_path: Path, certs: Path) -> None:
    process = Process(tmp_path, "--server-addr=0.0.0.0", *told(certs))
    await process.start()
    try:
        async with asyncio.timeout(LIMIT_S):
            while not process.port_file.exists():  # noqa: ASYNC110 - a file, written by another process
                await asyncio.sleep(0.01)
        credentials = Credentials(certs / "ca.pem", token_file=certs / "token-reader-bob")
        async with Client(port=int(process.port_file.read_text()), credentials=credentials) as client:
            await client.status()
    finally:
        await process.end(signal.SIGTERM)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--tls-cert=none.pem"], "none.pem: No such file"),
        (["--tls-key=x"], "--tls-key and --tls-client-ca go with --tls-cert"),
        (["--tokens=none"], "none: No such file"),
    ],
)
async def test_files_that_cannot_be_used_are_one_line(tmp_path: Path, options: list[str], why: str) -> None:
    status, said = await refused(Process(tmp_path, *options))
    assert status == 1
    assert len(said) == 1
    assert why in said[0]


async def test_beyond_loopback_tls_alone_is_not_enough(tmp_path: Path, certs: Path) -> None:
    status, said = await refused(Process(tmp_path, "--server-addr=0.0.0.0", *told(certs)[:2]))
    assert status == 1
    assert "anybody may ask: give --tls-client-ca or --tokens, or say --insecure-listen" in said[-1]
