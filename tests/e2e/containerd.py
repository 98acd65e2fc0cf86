"""containerd with runc, of Debian's, on directories and a socket of its own, and an image made of busybox alone."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.cgroups import remove_empty
from tests.ports import free_port
from tests.waiting import LIMIT_S, eventually

IMAGE = "docker.io/library/infrasight-test:1"
PAUSE = "docker.io/library/infrasight-pause:1"
"""What stands for a pod: the same, that waits to be ended."""
NAMESPACE = "infrasight-test"
"""Where the image is too, besides `default`."""
APPLETS = ("sh", "true", "sleep", "cat")
PASSWD, GROUP = b"captain:x:0:0::/:/bin/sh\n", b"bridge:x:0:\n"
"""Who there is in the image: the host has other names for them."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [{1}]
[grpc]
  address = "{0}/socket"
[ttrpc]
  address = "{0}/ttrpc"
[metrics]
  address = "127.0.0.1:{2}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{3}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
"""
_CRI = '"io.containerd.grpc.v1.cri"'


def _tar(files: dict[str, bytes]) -> bytes:
    """Everything can be executed."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def image(name: str = IMAGE, *command: str) -> bytes:
    """An OCI image layout, as a tar archive."""
    blobs: dict[str, bytes] = {}

    def described(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}

    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    layer = described("layer.v1.tar", _tar({f"bin/{applet}": busybox for applet in APPLETS} | {"etc/passwd": PASSWD, "etc/group": GROUP}))
    what = {"architecture": _ARCHITECTURES[platform.machine()], "os": "linux", "config": {"Env": ["PATH=/bin"], "Entrypoint": list(command)}}
    config = described("config.v1+json", json.dumps(what | {"rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode())
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]}
    named = described("manifest.v1+json", json.dumps(manifest).encode(), annotations={"io.containerd.image.name": name})
    index = {"schemaVersion": 2, "manifests": [named]}
    return _tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs})


class Containerd:
    """A context manager that starts it, with the image in its store, and ends it."""

    def __init__(self, *, cri: bool = False) -> None:
        """With `cri` it can be driven through that, too (`cri.py`)."""
        self.directory = Path(tempfile.mkdtemp(prefix="isc-"))  # a socket's path has 107 bytes at most
        self.socket, self._metrics_port, self._cri = self.directory / "socket", free_port(), cri

    def __enter__(self) -> Self:
        config = _CONFIG.format(self.directory, "" if self._cri else _CRI, self._metrics_port, PAUSE)
        (self.directory / "config.toml").write_text(config)
        self.start()
        for name, command in ((IMAGE, ()), (PAUSE, ("/bin/sleep", "1000000"))):
            (self.directory / "image.tar").write_bytes(image(name, *command))
            for namespace in ("default", NAMESPACE, "k8s.io"):
                self._ctr("--namespace", namespace, "images", "import", str(self.directory / "image.tar"))
        listed = self._ctr("images", "ls", f"name=={IMAGE}").stdout.decode()
        self.digest = next(word for word in listed.split() if word.startswith("sha256:"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_all()
        self.stop()
        shutil.rmtree(self.directory)
        remove_empty("/default")
        remove_empty("/k8s.io")

    def _end_all(self) -> None:
        """What a test that failed has left; its shims would go on for ever."""
        for namespace in ("default", NAMESPACE, "k8s.io"):
            for name in self._ctr("--namespace", namespace, "tasks", "ls", "--quiet", check=False).stdout.decode().split():
                self._ctr("--namespace", namespace, "tasks", "rm", "--force", name, check=False)

    def start(self) -> None:
        """Once it answers."""
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(["containerd", "--config", self.directory / "config.toml"], stdout=log, stderr=log)
        said = (self.directory / "log").read_text
        eventually(lambda: self._ctr("version", check=False).returncode == 0 or self._process.poll() is not None, said=said)
        assert self._process.poll() is None, said()

    def stop(self) -> None:
        """Its containers, images and settings stay."""
        self._process.terminate()
        self._process.wait(LIMIT_S)

    def kill(self) -> None:
        """As `stop`, at once and without a word."""
        self._process.kill()
        self._process.wait(LIMIT_S)

    def calls(self, service: str, method: str) -> int:
        """How often it was asked this, through its socket, since it was started."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/v1/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        told = f'grpc_server_started_total{{grpc_method="{method}",grpc_service="{service}"'
        return sum(int(line.split()[-1]) for line in lines if line.startswith(told))

    def _ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["ctr", "--address", self.socket, *words], check=check, capture_output=True)

    def run(self, name: str, script: str, *options: str, namespace: str = "default") -> None:
        """Run a shell script in a new container, to its end; it has to succeed."""
        done = self._ctr("--namespace", namespace, "run", "--rm", *options, IMAGE, name, "sh", "-c", script, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def signal(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container."""
        self._ctr("task", "kill", "--signal", signal, name)
