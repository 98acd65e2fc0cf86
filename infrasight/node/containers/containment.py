"""Which container a cgroup belongs to, read off its path, by the conventions of the runtimes and their cgroup drivers. No I/O.

A path tells of a container when one of its names, with those above it, is as a runtime makes them; of several the innermost is meant, since
containers can run others. What is around a container (conmon, shims, the services of runtimes, mounts of its file systems) is not in it. Nobody
checks names: who may make cgroups can give them any, so a path can be made up by root and, below their own session, by users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_ID_DIGITS = 64
_HEX = rb"(?P<id>[0-9a-f]{%d})" % _ID_DIGITS
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
        (rb"/(?P<space>default|k8s\.io)/(?P<id>[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*)", b"containerd"),
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
_USER = re.compile(rb"/user\.slice/user-([1-9][0-9]*)\.slice/")
"""The part of the tree that is a user's own, below which they can make cgroups as they like; root's is no different from the rest."""
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
    space: bytes = b""
    """The namespace of containerd's that it is in, where that is told."""
    realm: bytes = b""
    """Whose runtimes may tell of it: empty for the system's, the user's number for one in the part of the tree that is theirs. A name, which can be
    that of others, inside of another container is told of by nobody, as `in:` and that one's id; where that one is itself what we run in, its
    containers have ids."""
    started_ns: int = 0
    """When its cgroup was made, ns since the epoch; 0 where that was not seen."""


NOWHERE = Container()
"""In no container."""


def container_of(path: bytes, around: Container = NOWHERE, *, whole: bool = True) -> Container:
    """The container that the cgroup at this absolute path is in; `around` is what is known already of a part of the path. Of one that is not `whole`
    the end is given."""
    owner = _USER.match(path) if whole else None
    realm = owner[1] if owner else around.realm
    found, inside = around if around.realm == realm else replace(around, realm=realm), 0
    names = _THREE_PARTS.sub(rb"\1/\2-\3.scope", path).split(b"/")[1:]
    for end in range(1, len(names) + 1):
        start = max(inside, end - _LOOKED_AT)
        within = b"/".join([b"", *([b".."] if start > inside else []), *names[start:end]])
        if pod := _first(_PODS, within):
            found = replace(found, pod_uid=pod["uid"].replace(b"_", b"-"))
        for rule, runtime in RULES:
            if match := rule.fullmatch(within):
                told = match.groupdict()
                prefix = told.get("prefix", b"")
                id, space = _unescaped(told["id"]), told.get("space") or b""
                realm = b"in:" + found.id if found.id not in (b"", id) and len(id) != _ID_DIGITS else realm
                found, inside = Container(id, runtime or PREFIXES.get(prefix, prefix), found.pod_uid, space, realm), end
                break
    return replace(found, started_ns=around.started_ns) if found.id == around.id else found


def _first(rules: tuple[re.Pattern[bytes], ...], text: bytes) -> re.Match[bytes] | None:
    return next((match for rule in rules if (match := rule.fullmatch(text))), None)


def _unescaped(name: bytes) -> bytes:
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), name)
