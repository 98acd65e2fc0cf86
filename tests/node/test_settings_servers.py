"""Where servers and the spool are, as an operator says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.errors import SettingsError
from infrasight.node import settings as module
from infrasight.node.settings import Settings
from infrasight.settings import parse


def settings(*argv: str, **environ: str) -> Settings:
    return parse(Settings, list(argv), environ, prog="node", description="")


@pytest.mark.parametrize(
    ("given", "servers"),
    [
        ("a", [("a", 50051)]),
        ("a,b:50052", [("a", 50051), ("b", 50052)]),
        ("10.0.0.1:1, 10.0.0.2", [("10.0.0.1", 1), ("10.0.0.2", 50051)]),
        ("::1,[::2],[fe80::3]:7", [("::1", 50051), ("::2", 50051), ("fe80::3", 7)]),
    ],
)
def test_servers(given: str, servers: list[tuple[str, int]]) -> None:
    assert settings(f"--server-addr={given}").servers == tuple(servers)
    assert settings(SERVER_ADDR=given).servers == tuple(servers)


def test_the_port_of_those_without_one() -> None:
    assert settings("--server-addr=a,b:1", "--server-port=9").servers == (("a", 9), ("b", 1))
    assert settings().servers == (("127.0.0.1", 50051),)


@pytest.mark.parametrize("given", ["a:", "a:0", "a:65536", "a:x", "[::1", "[::1]x", ":1", "a:b:c", "::1:", "1.2.3.4:5:6"])
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(SettingsError, match=r"^--server-addr: "):
        _ = settings(f"--server-addr={given}").servers


def test_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings("--spool-dir=none").spool is None
    assert settings(f"--spool-dir={tmp_path}").spool == tmp_path
    monkeypatch.setattr(module, "SPOOL_DIR", tmp_path / "usual" / "spool")
    assert Settings(spool_dir=str(tmp_path / "usual" / "spool")).spool == tmp_path / "usual" / "spool"
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert Settings(spool_dir=str(tmp_path / "usual" / "spool")).spool is None, "nobody asked for it"
    assert settings(f"--spool-dir={tmp_path}").spool == tmp_path, "somebody did: that it does not work is told"
    limits = settings("--spool-bytes=2097152", "--spool-age-s=60", "--spool-fsync-s=0.5").spool_limits
    assert (limits.bytes, limits.age_s, limits.fsync_s) == (2097152, 60.0, 0.5)
