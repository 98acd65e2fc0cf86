"""What an OCI runtime specification says (github.com/opencontainers/runtime-spec, config.md and config-linux.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infrasight.runtimes.loose import inside, parsed, text

_EVERYTHING = "CAP_SYS_ADMIN"


@dataclass(frozen=True)
class Spec:
    """What of it we use."""

    privileged: bool = False
    """Whether the container may use all devices and has CAP_SYS_ADMIN, as `--privileged` gives it."""
    cgroup: bytes = b""
    """The path of its cgroup; empty where the systemd driver makes it (`slice:prefix:id`)."""
    pod: str = ""
    """The id of the pod's sandbox, as containerd notes it for pods (containerd/pkg/cri/annotations)."""
    name: str = ""
    """What it is called in that pod."""


def read(spec: bytes) -> Spec:
    """What a specification says; nothing, when it cannot be understood."""
    return understood(parsed(spec))


def understood(told: Any) -> Spec:
    """What a specification says that was parsed already."""
    path, notes = inside(told, "linux").get("cgroupsPath"), inside(told, "annotations")
    return Spec(
        _is_privileged(told),
        path.encode(errors="replace") if isinstance(path, str) and path.startswith("/") else b"",
        text(notes, "io.kubernetes.cri.sandbox-id"),
        text(notes, "io.kubernetes.cri.container-name"),
    )


def _is_privileged(told: Any) -> bool:
    process, resources = inside(told, "process", "capabilities"), inside(told, "linux", "resources")
    bounding, devices = process.get("bounding"), resources.get("devices")
    if not isinstance(bounding, list) or not isinstance(devices, list):
        return False
    return _EVERYTHING in bounding and any(_is_all(device) for device in devices)


def _is_all(rule: Any) -> bool:
    """A rule that allows every device: of any type (`a`, or not said) and number."""
    if not isinstance(rule, dict) or rule.get("allow") is not True or rule.get("type", "a") not in ("", "a"):
        return False
    return all(rule.get(part) in (None, -1) for part in ("major", "minor")) and set("rwm") <= set(str(rule.get("access", "")))
