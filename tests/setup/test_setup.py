"""`deploy/setup.sh`: what it says when it cannot go on, and that it does nothing when nothing is missing.

Each test runs the real script in a small checkout of its own, with stand-ins in front of PATH for the commands whose answer matters.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ALL_INSTALLED = 'shift 3; for name in "$@"; do echo "$name installed"; done'


@dataclass
class Checkout:
    """A checkout with what setup.sh reads, and stand-ins for the commands it calls."""

    root: Path

    @property
    def bin(self) -> Path:
        return self.root.parent / "bin"

    def stand_in(self, command: str, body: str) -> None:
        """Make `command` do `body` for the script."""
        self.bin.mkdir(exist_ok=True)
        file = self.bin / command
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def start(self, profile: str = "run", **environment: str) -> subprocess.Popen[str]:
        """Start `deploy/setup.sh profile` in a process group of its own."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON", "INFRASIGHT_"))}
        return subprocess.Popen(
            [self.root / "deploy/setup.sh", profile],
            env=inherited | {"PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def setup(self, profile: str = "run", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `deploy/setup.sh profile` to its end."""
        running = self.start(profile, **environment)
        out, err = running.communicate(timeout=60)
        return subprocess.CompletedProcess(running.args, running.returncode, out, err)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout on a machine where everything the script asks for is in order; each test breaks one thing."""
    made = Checkout(tmp_path / "a checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE", "deploy/setup.sh", "infrasight/__init__.py"):
        (made.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, made.root / name)
    (made.root / "bpf").mkdir()
    made.stand_in("id", "echo 0")
    made.stand_in("dpkg-query", ALL_INSTALLED)
    made.stand_in("apt-get", 'echo "apt-get must not run here"; exit 99')
    made.stand_in("mount", 'echo "mount must not run here"; exit 99')
    (tmp_path / "tracing/events").mkdir(parents=True)
    return made


@pytest.fixture
def healthy(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with type information and tracefs, where nothing outside the checkout is touched."""
    (tmp_path / "vmlinux").touch()
    (tmp_path / "units").mkdir()
    return {
        "INFRASIGHT_BTF": str(tmp_path / "vmlinux"),
        "INFRASIGHT_TRACEFS": str(tmp_path / "tracing"),
        "INFRASIGHT_UNITS": str(tmp_path / "units"),
    }


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that says why the script stopped."""
    assert done.returncode == 1, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("infrasight: ")
    return last


def test_scripts_are_valid_shell() -> None:
    for script in ("deploy/setup.sh", ".ci/run"):
        subprocess.run(["bash", "-n", REPOSITORY / script], check=True)
        assert os.access(REPOSITORY / script, os.X_OK)


def test_make_alone_lists_the_targets() -> None:
    listed = subprocess.run(["make", "-C", REPOSITORY], capture_output=True, text=True, check=True).stdout
    for target in ("setup", "run", "test", "lint", "bench", "proto", "docs", "clean", "help"):
        assert f"make {target} " in listed


def test_wrong_argument_shows_usage(checkout: Checkout) -> None:
    done = checkout.setup("everything")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_without_root(checkout: Checkout, healthy: dict[str, str]) -> None:
    checkout.stand_in("id", "echo 1000")
    assert "make needs root" in refused(checkout.setup(**healthy))


def test_without_type_information(checkout: Checkout, healthy: dict[str, str]) -> None:
    said = refused(checkout.setup(**healthy | {"INFRASIGHT_BTF": "/nonexistent/vmlinux"}))
    assert "/nonexistent/vmlinux is missing" in said
    assert "CONFIG_DEBUG_INFO_BTF" in said


def test_tracefs_that_cannot_be_mounted(checkout: Checkout, healthy: dict[str, str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tracing")
    checkout.stand_in("mount", 'echo "mount: permission denied." >&2; exit 32')
    said = refused(checkout.setup(**healthy))
    assert f"make needs tracefs at {tmp_path}/tracing" in said
    assert "permission denied" in said
    assert "privileged" in said


def test_tracefs_is_mounted_when_it_is_not(checkout: Checkout, healthy: dict[str, str], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tracing")
    checkout.stand_in("mount", f'echo "$@" >"{tmp_path}/mounted"; mkdir -p "$4/events"')
    checkout.setup(**healthy, PYTHON="/nonexistent/python")
    assert (tmp_path / "mounted").read_text() == f"-t tracefs tracefs {tmp_path}/tracing\n"


def test_not_a_debian(checkout: Checkout, healthy: dict[str, str]) -> None:
    (checkout.bin / "dpkg-query").unlink()
    (checkout.bin / "apt-get").unlink()
    for command in ("bash", "dirname", "uname", "flock", "sh"):
        (checkout.bin / command).symlink_to(shutil.which(command) or "")
    said = refused(checkout.setup(**healthy, PATH=str(checkout.bin)))
    assert "make needs Debian 12" in said
    assert "python3-bpfcc" in said


def test_apt_without_network(checkout: Checkout, healthy: dict[str, str]) -> None:
    checkout.stand_in("dpkg-query", "echo python3 installed")
    checkout.stand_in("apt-get", 'echo "Err:1 somewhere bookworm InRelease: Temporary failure resolving"; exit 100')
    done = checkout.setup(**healthy)
    assert "make needs the network: apt-get update failed" in refused(done)
    assert "| Err:1 somewhere bookworm InRelease" in done.stderr


def test_only_missing_packages_are_installed(checkout: Checkout, healthy: dict[str, str], tmp_path: Path) -> None:
    checkout.stand_in("dpkg-query", "echo python3 installed; echo python3-venv config-files; echo ca-certificates installed")
    checkout.stand_in("apt-get", f'echo "$@" >>"{tmp_path}/apt"; test "$DEBIAN_FRONTEND" = noninteractive')
    checkout.setup(**healthy, PYTHON="/nonexistent/python")
    update, install = (tmp_path / "apt").read_text().splitlines()
    assert update.endswith(" update")
    assert install.endswith(" install --no-install-recommends python3-venv python3-bpfcc")


def test_no_service_is_started_by_what_is_installed(checkout: Checkout, healthy: dict[str, str], tmp_path: Path) -> None:
    """The stand-in for apt-get does what the package's own script does."""
    checkout.stand_in("dpkg-query", 'shift 3; for name in "$@"; do [ "$name" = clickhouse-server ] || echo "$name installed"; done')
    checkout.stand_in("apt-get", "case $* in *' install '*) invoke-rc.d clickhouse-server start; deb-systemd-invoke start clickhouse-server;; esac")
    for starter in ("invoke-rc.d", "deb-systemd-invoke"):
        checkout.stand_in(starter, f'touch "{tmp_path}/started"')
    checkout.setup("test", **healthy, PYTHON="/bin/false")
    assert not (tmp_path / "started").exists()
    assert (tmp_path / "units" / "clickhouse-server.service").readlink() == Path("/dev/null")


def test_apt_that_cannot_install(checkout: Checkout, healthy: dict[str, str]) -> None:
    checkout.stand_in("dpkg-query", "exit 1")
    checkout.stand_in("apt-get", 'case "$*" in *install*) echo "E: You don\'t have enough free space"; exit 100 ;; esac')
    done = checkout.setup("test", **healthy)
    assert "apt-get could not install python3 python3-venv python3-bpfcc" in refused(done)
    assert "enough free space" in done.stderr


def test_python_that_does_not_run(checkout: Checkout, healthy: dict[str, str]) -> None:
    said = refused(checkout.setup(**healthy, PYTHON="/nonexistent/python"))
    assert "make needs Python 3.11 to 3.13: /nonexistent/python does not run" in said


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_python_of_another_version(checkout: Checkout, healthy: dict[str, str], version: str) -> None:
    checkout.stand_in("another-python", f"echo {version}")
    said = refused(checkout.setup(**healthy, PYTHON=str(checkout.bin / "another-python")))
    assert f"is {version}" in said


def with_pip(checkout: Checkout, body: str) -> dict[str, str]:
    """A Python whose virtual environments have `body` for a pip, and a bcc to import; it logs what it is asked in `asked`."""
    checkout.stand_in(
        "a-python",
        f"""
        echo "$*" >>"{checkout.root.parent}/asked"
        case "$*" in
            "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
            "-m pip "*) {body} ;;
            *sysconfig*) dirname "$0" ;;
            "-c import bcc") ;;
            *) exec {sys.executable} "$@" ;;
        esac""",
    )
    return {"PYTHON": str(checkout.bin / "a-python")}


@pytest.fixture
def asked(checkout: Checkout) -> Callable[[str], int]:
    """How often the stand-in Python was asked for something."""
    file = checkout.root.parent / "asked"
    return lambda what: file.read_text().count(what) if file.exists() else 0


needs_bcc = pytest.mark.needs("bcc")


@needs_bcc
def test_pip_without_network(checkout: Checkout, healthy: dict[str, str]) -> None:
    python = with_pip(checkout, 'echo "ERROR: Could not find a version that satisfies the requirement hatchling"; exit 1')
    done = checkout.setup(**healthy, **python)
    assert "pip could not install the Python packages" in refused(done)
    assert "| ERROR: Could not find a version" in done.stderr


@needs_bcc
def test_second_run_is_quick_and_silent(checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int]) -> None:
    python = with_pip(checkout, "true")
    first = checkout.setup(**healthy, **python)
    assert (first.returncode, first.stdout) == (0, "")
    assert first.stderr == "infrasight: installing Python packages into .venv (infrasight[server])\n"
    begin = time.monotonic()
    second = checkout.setup(**healthy, **python)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert time.monotonic() - begin < 20
    assert asked("-m pip") == 1


@needs_bcc
def test_changed_requirements_are_installed_into_the_same_environment(
    checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int]
) -> None:
    python = with_pip(checkout, "true")
    checkout.setup(**healthy, **python)
    with (checkout.root / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    checkout.setup(**healthy, **python)
    assert (asked("-m venv"), asked("-m pip")) == (1, 2)


@needs_bcc
def test_each_profile_is_installed_once(checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int]) -> None:
    python = with_pip(checkout, "true")
    for profile in ("run", "test", "run", "test"):
        assert checkout.setup(profile, **healthy, **python).returncode == 0
    assert (asked("-m venv"), asked("[server]"), asked("[server,dev]")) == (1, 1, 1)


@needs_bcc
def test_what_is_installed_for_tests_is_enough_to_run(checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int]) -> None:
    python = with_pip(checkout, "true")
    for profile in ("test", "run"):
        assert checkout.setup(profile, **healthy, **python).returncode == 0
    assert asked("-m pip") == 1


@needs_bcc
@pytest.mark.parametrize("harm", ["broken", "moved", "unfinished"])
def test_environment_that_cannot_be_trusted_is_made_anew(
    checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int], harm: str
) -> None:
    python = with_pip(checkout, "true")
    checkout.setup(**healthy, **python)
    if harm == "broken":
        (checkout.root / ".venv/bin/python").unlink()
    elif harm == "unfinished":
        (checkout.root / ".venv/.infrasight-installing").touch()
    else:
        checkout.root = checkout.root.rename(checkout.root.parent / "elsewhere")
    done = checkout.setup(**healthy, **python)
    assert done.returncode == 0
    assert "making .venv anew" in done.stderr
    assert asked("-m venv") == 2
    assert checkout.setup(**healthy, **python).stderr == ""


@needs_bcc
def test_two_at_once_do_not_collide(checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int]) -> None:
    python = with_pip(checkout, "sleep 0.5")
    both = [checkout.start(**healthy, **python) for _ in range(2)]
    said = [one.communicate(timeout=60)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert asked("-m pip") == 1
    assert sum("waiting for it" in lines for lines in said) == 1


@needs_bcc
def test_interrupted_in_the_middle_the_next_run_mends_it(
    checkout: Checkout, healthy: dict[str, str], asked: Callable[[str], int], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "reached")
    running = checkout.start(**healthy, **with_pip(checkout, f'echo >"{tmp_path}/reached"; exec sleep 100'))
    (tmp_path / "reached").read_text()  # returns once pip has been started
    os.killpg(running.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    assert running.communicate(timeout=10)[1].endswith("infrasight: interrupted; run make again to go on.\n")
    assert running.returncode == 130
    assert checkout.setup(**healthy, **with_pip(checkout, "true")).returncode == 0
    assert asked("-m venv") == 2
