"""`python -m infrasight.wire.generate`: write `events.proto` from the schema, then the Python messages from all of `proto/`.

A developer's tool: it needs grpcio-tools (protoc) and betterproto2_compiler, which nothing else does. Its output is committed, and a test
regenerates it and compares.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from infrasight.schema.protobuf import events_proto

ROOT = Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
EVENTS_PROTO = Path("infrasight/v1/events.proto")
OURS = {"collector": ("infrasight/v1/collector.proto",), "query": (str(EVENTS_PROTO), "infrasight/v1/query.proto")}
"""What is compiled together, to a package of its own, and all others to `others`: a node has no need of a message for each kind of event."""
GENERATED = Path(__file__).resolve().parent / "_generated"


def write_proto(target: Path) -> None:
    """Write all `.proto` files to the directory `target`: those written by hand and the derived one."""
    for source in PROTO.rglob("*.proto"):
        copy = target / source.relative_to(PROTO)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy != source:
            shutil.copyfile(source, copy)
    (target / EVENTS_PROTO).write_text(events_proto())


def compile_proto(proto: Path, target: Path) -> None:
    """Compile every `.proto` file under `proto` to Python under `target`, which is emptied first. CalledProcessError when protoc
    refuses."""
    shutil.rmtree(target, ignore_errors=True)
    others = {str(path.relative_to(proto)) for path in proto.rglob("*.proto")}.difference(*OURS.values())
    for group, sources in {**OURS, "others": sorted(others)}.items():
        _compile(proto, target / group, sources)
    (target / "__init__.py").touch()


def _compile(proto: Path, target: Path, sources: Sequence[str]) -> None:
    target.mkdir(parents=True)
    # Our client opens calls itself (wire/channel.py); of the server code, the routes are what we use (wire/service.py).
    options = ["--python_betterproto2_opt=client_generation=none", "--python_betterproto2_opt=server_generation=async"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(proto), f"--python_betterproto2_out={target}", *options, *sources]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PATH": path})


def main() -> None:
    """Regenerate in place, and only when all went well."""
    write_proto(PROTO)
    with tempfile.TemporaryDirectory() as scratch:
        compile_proto(PROTO, Path(scratch) / "generated")
        shutil.rmtree(GENERATED, ignore_errors=True)
        shutil.copytree(Path(scratch) / "generated", GENERATED)


if __name__ == "__main__":
    main()
