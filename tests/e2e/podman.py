"""podman with runc, of Debian's, on directories and a socket of its own, and the image of `containerd.py`."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.cgroups import remove_empty
from tests.e2e.containerd import IMAGE, image
from tests.waiting import LIMIT_S, eventually

_STORAGE = '[storage]\ndriver = "vfs"\ngraphroot = "{0}/graph"\nrunroot = "{0}/run"\n'
_CONTAINERS = """[containers]
netns = "host"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{0}/tmp"
static_dir = "{0}/static"
volume_path = "{0}/volumes"
"""


class Podman:
    """A context manager that starts its service, with the image in its store, and ends it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="isp-"))
        self.socket = self.directory / "socket"
        files = {"CONTAINERS_STORAGE_CONF": _STORAGE, "CONTAINERS_CONF": _CONTAINERS}
        for name, content in files.items():
            (self.directory / name).write_text(content.format(self.directory))
        self._environ = os.environ | {name: str(self.directory / name) for name in files}

    def __enter__(self) -> Self:
        (self.directory / "image.tar").write_bytes(image())
        self._podman("load", "-i", str(self.directory / "image.tar"))
        log = (self.directory / "log").open("wb")
        command = ["podman", "system", "service", "--time=0", f"unix://{self.socket}"]
        self._process = subprocess.Popen(command, env=self._environ, stdout=log, stderr=log)
        eventually(lambda: self.socket.is_socket() or self._process.poll() is not None, said=(self.directory / "log").read_text)
        assert self._process.poll() is None, (self.directory / "log").read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_S)
        shutil.rmtree(self.directory)
        remove_empty("/libpod_parent/conmon")
        remove_empty("/libpod_parent")

    def _podman(self, *words: str) -> None:
        done = subprocess.run(["podman", *words], env=self._environ, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def run(self, name: str, script: str, *options: str) -> None:
        """Run a shell script in a new container, to its end; it has to succeed. Where conmon may not do all it likes, podman hears of that end only
        20 seconds later."""
        self._podman("run", "--rm", "--name", name, *options, IMAGE, "sh", "-c", script)
