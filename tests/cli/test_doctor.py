"""The doctor sees what is there, and says how to mend what is not."""

from __future__ import annotations

import importlib.machinery
import json
import os
from pathlib import Path

import pytest
from aiohttp import web

from infrasight.cli import checks
from infrasight.cli.checks import Check
from infrasight.cli.main import main
from infrasight.cli.options import Reach
from infrasight.trust import Cluster
from tests.cli.stub import Stub, served
from tests.runtimes.fake_kubernetes import FakeKubernetes, Pods, listening, status


def status_file(folder: Path, capabilities: int) -> Path:
    file = folder / "status"
    file.write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    return file


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ({2, 19, 38, 39}, []),
        ({2, 19, 21}, []),
        ({2, 38}, ["CAP_SYS_PTRACE", "CAP_BPF"]),
        (set(), ["CAP_DAC_READ_SEARCH", "CAP_SYS_PTRACE", "CAP_PERFMON", "CAP_BPF"]),
    ],
)
def test_capabilities_that_are_missing_are_named(held: set[int], missing: list[str], tmp_path: Path) -> None:
    check = checks.rights(status_file(tmp_path, sum(1 << bit for bit in held)))
    assert check.ok is not missing
    assert check.ok == (not missing)
    if missing:
        assert f"without {', '.join(missing)}" in check.detail


def test_btf(tmp_path: Path) -> None:
    assert not checks.btf(tmp_path / "vmlinux").ok
    (tmp_path / "vmlinux").touch()
    assert checks.btf(tmp_path / "vmlinux").ok


@pytest.mark.parametrize(("files", "ok"), [(["__init__.py"], False), (["__init__.py", "libbcc.py", "version.py"], True)])
def test_the_unrelated_package_called_bcc_is_told_apart(files: list[str], ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in files:
        (tmp_path / name).write_text("__version__ = '0.99.0'\n")
    spec = importlib.machinery.ModuleSpec("bcc", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _name: spec)
    check = checks.bcc()
    assert check.ok is ok
    assert ("0.99.0" in check.detail) is ok


def test_bcc_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.importlib.util, "find_spec", lambda _name: None)
    assert "python3-bpfcc" in checks.bcc().mend


def test_a_directory_need_not_exist_yet(tmp_path: Path) -> None:
    assert checks.directory(tmp_path / "a" / "b").ok
    assert not (tmp_path / "a").exists()


def test_a_directory_that_cannot_be_one() -> None:
    assert not checks.directory(Path("/proc/infrasight")).ok


async def test_a_server_that_is_away(unused_port: int) -> None:
    (check,) = await checks.server(Reach("127.0.0.1", unused_port))
    assert not check.ok
    assert "infrasight up" in check.mend


@pytest.mark.parametrize("problem", ["", "the disk is full"])
async def test_a_server_and_its_store(problem: str) -> None:
    with served(Stub(store_problem=problem)) as port:
        up, store = await checks.server(Reach("127.0.0.1", int(port)))
    assert up.ok
    assert "1.2.3" in up.detail
    assert store.ok is not problem
    assert store.detail == (problem or "7 rows stored since the server started")
    assert store.ok == (not problem)


async def test_kubernetes() -> None:
    """Checked where it is to be asked: whether it is there, lets us, and knows this node."""
    fake = FakeKubernetes()
    assert await checks.kubernetes(Cluster("n")) == []
    async with listening(fake) as url, Pods(url) as made:
        cluster = Cluster("n", url)
        (unknown,) = await checks.kubernetes(cluster)
        assert (unknown.ok, unknown.detail) == (False, f"{url} tells of 0 pods of node n")
        assert "NODE_NAME" in unknown.mend
        await made.create("a", "n")
        (well,) = await checks.kubernetes(cluster)
        assert (well.ok, well.detail) == (True, f"{url} tells of 1 pods of node n")

        async def refuse(_: web.Request) -> web.StreamResponse:
            return web.json_response(status(403, "Forbidden", "no"), status=403)

        fake.answers = refuse
        (refused,) = await checks.kubernetes(cluster)
        assert (refused.ok, "deploy/kubernetes-pods.yaml" in refused.mend) == (False, True)
    (away,) = await checks.kubernetes(cluster)
    assert (away.ok, "can be reached" in away.mend) == (False, True)
    (wrong,) = await checks.kubernetes(Cluster("n", "nowhere"))
    assert not wrong.ok


def test_the_clock() -> None:
    assert checks.clock().ok


@pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")
@pytest.mark.kernel
async def test_every_probe_attaches_here() -> None:
    found = await checks.probes()
    assert [check for check in found if not check.ok] == []
    assert "probe open" in [check.name for check in found]


async def test_probes_are_not_tried_without_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (check,) = await checks.probes()
    assert not check.ok


@pytest.fixture
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def probes() -> list[Check]:
        return [Check("probe open", False, "no \x1b tracepoint", "use another kernel")]

    monkeypatch.setattr(checks, "probes", probes)


@pytest.mark.usefixtures("no_probes")
def test_a_failure_says_how_to_mend_it(unused_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--server-port", str(unused_port)]) == 1
    said = capsys.readouterr().out
    assert r"FAIL  probe open      no \e tracepoint" in said
    assert "to mend it: use another kernel" in said


@pytest.mark.usefixtures("no_probes")
def test_json(unused_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--server-port", str(unused_port), "--data-dir", str(tmp_path)]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"kernel", "rights", "btf", "tracefs", "bcc", "clock", "probe open", "data", "server"} == {each["name"] for each in found}
    assert all(each["mend"] for each in found if not each["ok"])
