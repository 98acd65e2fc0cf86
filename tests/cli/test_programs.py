"""What the children of `infrasight up` are told."""

from __future__ import annotations

from pathlib import Path

from infrasight.cli import programs
from infrasight.server.settings import Settings as ServerSettings
from infrasight.settings import describe
from infrasight.trust import Trust


def test_what_is_said_of_servers_elsewhere_is_not_for_them(tmp_path: Path) -> None:
    """Node and server of one machine talk over loopback, whatever the variables about TLS say."""
    about = {row.env for settings in (Trust, ServerSettings) for row in describe(settings) if row.name.startswith(("tls_", "token"))}
    assert len(about) == 6
    environ = dict.fromkeys(about, "/some/file") | {"PATH": "/bin", "INFRASIGHT_NICE": "0"}
    server = programs.server(tmp_path, tmp_path / "port", environ=environ)
    node = programs.node(lambda: 1, environ=environ, family=1, prometheus_port=0, interval_s=10)
    assert server.environ == {"PATH": "/bin", "INFRASIGHT_NICE": "0"}
    assert node.environ == {"PATH": "/bin", "INFRASIGHT_NICE": "0", "INFRASIGHT_FAMILY": "1"}
