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
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.e2e.cgroups import remove_empty

IMAGE = "docker.io/library/infrasight-test:1"
NAMESPACE = "infrasight-test"
"""Where the image is too, besides `default`."""
APPLETS = ("sh", "true", "sleep", "cat")
PASSWD, GROUP = b"captain:x:0:0::/:/bin/sh\n", b"bridge:x:0:\n"
"""Who there is in the image: the host has other names for them."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/socket"
[ttrpc]
  address = "{0}/ttrpc"
"""


def _tar(files: dict[str, bytes]) -> bytes:
    """Everything can be executed."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


def image() -> bytes:
    """An OCI image layout, as a tar archive."""
    blobs: dict[str, bytes] = {}

    def described(kind: str, content: bytes, **more: Any) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content), **more}

    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    layer = described("layer.v1.tar", _tar({f"bin/{applet}": busybox for applet in APPLETS} | {"etc/passwd": PASSWD, "etc/group": GROUP}))
    what = {"architecture": _ARCHITECTURES[platform.machine()], "os": "linux", "config": {"Env": ["PATH=/bin"]}}
    config = described("config.v1+json", json.dumps(what | {"rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}).encode())
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": [layer]}
    named = described("manifest.v1+json", json.dumps(manifest).encode(), annotations={"io.containerd.image.name": IMAGE})
    index = {"schemaVersion": 2, "manifests": [named]}
    return _tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode(), **blobs})


class Containerd:
    """A context manager that starts it, with the image in its store, and ends it."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="isc-"))  # a socket's path has 107 bytes at most
        self.socket = self.directory / "socket"

    def __enter__(self) -> Self:
        (self.directory / "config.toml").write_text(_CONFIG.format(self.directory))
        self.start()
        (self.directory / "image.tar").write_bytes(image())
        for namespace in ("default", NAMESPACE):
            self._ctr("--namespace", namespace, "images", "import", str(self.directory / "image.tar"))
        listed = self._ctr("images", "ls").stdout.decode()
        self.digest = next(word for word in listed.split() if word.startswith("sha256:"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()
        shutil.rmtree(self.directory)
        remove_empty("/default")

    def start(self) -> None:
        """Once it answers."""
        log = (self.directory / "log").open("ab")
        self._process = subprocess.Popen(["containerd", "--config", self.directory / "config.toml"], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while self._ctr("version", check=False).returncode:
            assert self._process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < end, (self.directory / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Its containers, images and settings stay."""
        self._process.terminate()
        self._process.wait(60)

    def _ctr(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(["ctr", "--address", self.socket, *words], check=check, capture_output=True, timeout=60)

    def run(self, name: str, script: str, *options: str, namespace: str = "default") -> None:
        """Run a shell script in a new container, to its end; it has to succeed."""
        done = self._ctr("--namespace", namespace, "run", "--rm", *options, IMAGE, name, "sh", "-c", script, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")

    def signal(self, name: str, signal: str) -> None:
        """Send a signal to the first process of a container."""
        self._ctr("task", "kill", "--signal", signal, name)
