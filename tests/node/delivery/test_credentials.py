"""A node that is not let in: it says so, keeps what it has, and ships it when its certificate is the right one."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from infrasight.actors import Mailbox
from infrasight.client import Credentials
from infrasight.errors import Unreachable
from infrasight.node.delivery import exporter as module
from infrasight.node.delivery.exporter import Exporter
from infrasight.node.flow import Encoded
from infrasight.server.access import Known
from infrasight.wire.access import Role
from tests.server.running import HELLO, MemoryStore, Running, message
from tests.waiting import LIMIT_S, until
from tests.wire.certificates import fleet


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)


def exporter(port: int, credentials: Credentials, reach_within_s: float = 20.0) -> tuple[Exporter, Mailbox[Encoded]]:
    inbox: Mailbox[Encoded] = Mailbox("in", limit=10)
    return Exporter(inbox, [("127.0.0.1", port)], HELLO, credentials=credentials, reach_within_s=reach_within_s), inbox


def put_in_place(name: str, directory: Path) -> Credentials:
    """The certificate of node `name`, as the one of this node."""
    given = fleet().client(Role.NODE, name)
    assert given.tls_cert is not None
    assert given.tls_key is not None
    shutil.copy(given.tls_cert, directory / "node.pem")
    shutil.copy(given.tls_key, directory / "node.key")
    return Credentials(fleet().ca, directory / "node.pem", directory / "node.key")


async def test_the_wrong_name_waits_for_the_right_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    credentials = put_in_place("another", tmp_path)
    async with Running(MemoryStore(), tls=fleet().tls(mutual=True), access=Known(None)) as running:
        exporting, inbox = exporter(running.port, credentials)
        task = asyncio.create_task(exporting.run())
        batch = message(1)
        await inbox.put(Encoded(batch.seq, batch.kind, batch.rows, batch.arrow, batch.oldest_unix_ns))
        await until(lambda: running.grpc.refused["access"] > 1)
        assert "node 'another' may not ship as 'n1'; trying again" in caplog.text
        assert not running.store.rows()
        put_in_place("n1", tmp_path)
        inbox.close()
        async with asyncio.timeout(LIMIT_S):
            await task
        assert running.store.rows() == 10


async def test_a_node_that_is_never_let_in_ends_with_the_reason(tmp_path: Path) -> None:
    async with Running(MemoryStore(), tls=fleet().tls(mutual=True), access=Known(None)) as running:
        for credentials, says in [
            (Credentials(fleet().ca), "certificate required"),
            (put_in_place("another", tmp_path), "may not ship as 'n1'"),
            (Credentials(), "it speaks TLS: give --tls-ca"),
            (Credentials(fleet().ca, tmp_path / "gone.pem"), "gone.pem"),
        ]:
            exporting, _ = exporter(running.port, credentials, reach_within_s=0.05)
            with pytest.raises(Unreachable, match=says):
                async with asyncio.timeout(LIMIT_S):
                    await exporting.run()
