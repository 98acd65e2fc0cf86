"""Which container a cgroup belongs to, read off its path, by the conventions of the runtimes and their cgroup drivers. No I/O.

A path tells of a container when one of its names, with those above it, is as a runtime makes them; of several the innermost is meant, since
containers can run others. What is around a container (conmon, shims, the services of runtimes, mounts of its file systems) is not in it. Nobody
checks names: who may make cgroups can give them any, so a path can be made up by root and, below their own session, by users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_HEX = rb"(?P<id>[0-9a-f]{64})"
_UID = rb"(?P<uid>[0-9a-f]{8}(?:[_-][0-9a-f]{4}){3}[_-][0-9a-f]{12}|[0-9a-f]{32})"
"""A pod's uid, with underscores in the name of a slice; that of a static pod is a hash (kubernetes/pkg/kubelet/config/common.go)."""
_BELOW = rb"/(?:.*/)?"
_LOOKED_AT = 3
"""Names that a rule looks at, at most."""

PREFIXES: dict[bytes, bytes] = {
    b"docker": b"docker",
    b"cri-containerd": b"containerd",
    b"nerdctl": b"containerd",
    b"crio": b"cri-o",
    b"libpod": b"podman",
    b"libpod-payload": b"podman",
}
"""What the systemd cgroup driver, and some others, put before an id of 64 hexadecimal digits, and whose it is."""
RULES: tuple[tuple[re.Pattern[bytes], bytes], ...] = tuple(
    (re.compile(pattern, re.DOTALL), runtime)
    for pattern, runtime in (
        (_BELOW + rb"(?P<prefix>" + b"|".join(PREFIXES) + b")-" + _HEX + rb"(?:\.scope)?", b""),
        (_BELOW + b"docker/" + _HEX, b"docker"),
        # A namespace of containerd's and whatever its client calls a container (containerd/oci: WithNamespacedCgroup).
        (rb"/(?:default|k8s\.io)/(?P<id>[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)", b"containerd"),
        (_BELOW + _HEX, b""),
        (_BELOW + rb"buildkit/(?P<id>[0-9a-z]{25})", b"buildkit"),
        (_BELOW + rb"(?P<prefix>runc|crun)-(?P<id>[\w+.-]+)\.scope", b""),
        (_BELOW + rb"lxc\.payload\.(?P<id>[^/]+)", b"lxc"),
        (rb"/lxc/(?P<id>[^/]+)", b"lxc"),
        (_BELOW + rb"systemd-nspawn@(?P<id>[^/]+)\.service/payload", b"systemd-nspawn"),
        (_BELOW + rb"machine\.slice/machine-(?P<id>[^/]+)\.scope/payload", b"systemd-nspawn"),
    )
)
"""What a path looks like whose last name begins a container, from the root or from the container around it; and the runtime, where that is told."""
_PODS = (
    re.compile(_BELOW + rb"(?:[^/]+-)?kubepods(?:-burstable|-besteffort)?-pod" + _UID + rb"\.slice", re.DOTALL),
    re.compile(_BELOW + rb"kubepods/(?:(?:burstable|besteffort)/)?pod" + _UID, re.DOTALL),
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")
"""How systemd writes what may not be in the name of a unit (systemd.unit(5))."""
_THREE_PARTS = re.compile(rb"([^:/]+):([^:/]+):([^:/]+)")
"""`slice:prefix:id`, meant for the systemd driver, where the other one took it for a name."""


@dataclass(frozen=True, slots=True)
class Container:
    """What a cgroup's path tells of the container it is in; empty where it tells nothing."""

    id: bytes = b""
    runtime: bytes = b""
    pod_uid: bytes = b""


NOWHERE = Container()
"""In no container."""


def container_of(path: bytes, around: Container = NOWHERE) -> Container:
    """The container that the cgroup at this absolute path is in; `around` is what is known already of a part of the path."""
    found, inside = around, 0
    names = _THREE_PARTS.sub(rb"\1/\2-\3.scope", path).split(b"/")[1:]
    for end in range(1, len(names) + 1):
        start = max(inside, end - _LOOKED_AT)
        within = b"/".join([b"", *([b".."] if start > inside else []), *names[start:end]])
        if pod := _first(_PODS, within):
            found = Container(found.id, found.runtime, pod["uid"].replace(b"_", b"-"))
        for rule, runtime in RULES:
            if match := rule.fullmatch(within):
                told = match.groupdict()
                prefix = told.get("prefix", b"")
                found, inside = Container(_unescaped(told["id"]), runtime or PREFIXES.get(prefix, prefix), found.pod_uid), end
                break
    return found


def _first(rules: tuple[re.Pattern[bytes], ...], text: bytes) -> re.Match[bytes] | None:
    return next((match for rule in rules if (match := rule.fullmatch(text))), None)


def _unescaped(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name)
