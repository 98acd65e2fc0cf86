"""Where Kubernetes' API server is, as an operator says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from infrasight.errors import SettingsError
from infrasight.settings import parse
from infrasight.trust import Cluster


@pytest.fixture(autouse=True)
def in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")


def cluster(*argv: str, **environ: str) -> Cluster:
    return parse(Cluster, argv, {"NODE_NAME": "node-1"} | environ, prog="node", description="")


def test_nobody_is_asked_unless_it_is_said() -> None:
    assert cluster().kubernetes is None


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("in-cluster", "https://10.0.0.1:6443"),
        ("https://api.example:6443/", "https://api.example:6443"),
        ("https://api.example/k8s/clusters/c", "https://api.example/k8s/clusters/c"),
        ("http://127.0.0.1:8001", "http://127.0.0.1:8001"),
        ("http://[::1]:8001", "http://[::1]:8001"),
        ("http://localhost:8001", "http://localhost:8001"),
    ],
)
def test_addresses(given: str, url: str) -> None:
    for asked in (cluster(f"--kubernetes-api={given}"), cluster(INFRASIGHT_KUBERNETES_API=given)):
        api = asked.kubernetes
        assert api is not None
        assert api.url == url
        credentials = api._credentials
        account = Path("/var/run/secrets/kubernetes.io/serviceaccount")
        shown = (account / "ca.crt", account / "token") if url.startswith("https:") else (None, None)
        assert (credentials.tls_ca, credentials.token_file) == shown, "a token is only shown over TLS"


def test_where_a_pod_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.delenv("KUBERNETES_SERVICE_PORT")
    api = cluster("--kubernetes-api=in-cluster", "--kubernetes-ca=system", "--kubernetes-token-file=/t").kubernetes
    assert api is not None
    assert (api.url, api._credentials.token_file) == ("https://[fd00::1]:443", Path("/t"))
    assert api._credentials.context().get_ca_certs() is not None
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    with pytest.raises(SettingsError, match="this is no pod of Kubernetes"):
        _ = cluster("--kubernetes-api=in-cluster").kubernetes


@pytest.mark.parametrize(
    "given", ["api.example:6443", "http://10.0.0.1:8001", "ftp://a", "https://", "https://u:secret@a", "https://a?b", "https://a#b", "https://a:x", "https://[a"]
)
def test_what_is_no_address(given: str) -> None:
    with pytest.raises(SettingsError, match=r"^--kubernetes-api: ") as error:
        _ = cluster(f"--kubernetes-api={given}").kubernetes
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(("given", "selected"), [("node-1", "node-1"), ("Node.Example", "node.example")])
def test_the_node(given: str, selected: str) -> None:
    """As the kubelet calls a host."""
    api = cluster("--kubernetes-api=https://a", f"--node-name={given}").kubernetes
    assert api is not None
    assert api._selected == {"fieldSelector": f"spec.nodeName={selected}"}


@pytest.mark.parametrize("given", ["a,metadata.name=b", "a b", "-a", "a_b", "a" * 254])
def test_what_is_no_node(given: str) -> None:
    """It would select something else."""
    with pytest.raises(SettingsError, match=r"^--node-name: "):
        _ = cluster("--kubernetes-api=https://a", f"--node-name={given}").kubernetes
