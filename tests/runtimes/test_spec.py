"""Whether an OCI specification is that of a privileged container."""

import json
from typing import Any

import pytest

from infrasight.runtimes.facts import LABEL_BYTES_MAX, LABELS_MAX, facts_of, labels_of
from infrasight.runtimes.spec import Spec, read

ALL = {"allow": True, "access": "rwm"}
NONE = {"allow": False, "access": "rwm"}
DISK = {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "rwm"}


def spec(bounding: Any, devices: Any) -> bytes:
    return json.dumps({"process": {"capabilities": {"bounding": bounding}}, "linux": {"resources": {"devices": devices}}}).encode()


@pytest.mark.parametrize(
    ("bounding", "devices", "privileged"),
    [
        (["CAP_SYS_ADMIN"], [NONE, ALL], True),
        (["CAP_SYS_ADMIN"], [{"allow": True, "type": "a", "major": -1, "minor": -1, "access": "rwm"}], True),
        (["CAP_SYS_ADMIN"], [NONE, DISK], False),
        (["CAP_SYS_ADMIN"], [{"allow": True, "access": "r"}], False),
        (["CAP_SYS_ADMIN"], [{"allow": True, "type": "c", "access": "rwm"}], False),
        (["CAP_CHOWN"], [ALL], False),
        (["CAP_SYS_ADMIN"], [], False),
        (["CAP_SYS_ADMIN"], [{"allow": "true", "access": "rwm"}, "rwm", None, 7], False),
        (None, [ALL], False),
        ("CAP_SYS_ADMIN", [ALL], False),
        (["CAP_SYS_ADMIN"], {"allow": True}, False),
    ],
)
def test_privileged(bounding: Any, devices: Any, privileged: bool) -> None:
    assert read(spec(bounding, devices)).privileged is privileged


@pytest.mark.parametrize("text", [b"", b"{", b"null", b"[]", b"7", b'{"process": 7, "linux": []}', b"\xff", b"[" * 100_000])
def test_what_cannot_be_understood_is_not(text: bytes) -> None:
    assert read(text) == Spec()


@pytest.mark.parametrize(("path", "cgroup"), [("/shop/web", b"/shop/web"), ("system.slice:docker:1", b""), ("", b""), (7, b""), (None, b"")])
def test_the_cgroup(path: Any, cgroup: bytes) -> None:
    assert read(json.dumps({"linux": {"cgroupsPath": path}}).encode()) == Spec(cgroup=cgroup)


def test_what_containerd_notes_of_a_pod() -> None:
    notes = {"io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.container-name": "web", "io.kubernetes.cri.sandbox-uid": 7}
    assert read(json.dumps({"annotations": notes}).encode()) == Spec(pod="s1", name="web")


def test_labels_are_bounded() -> None:
    assert labels_of({"b": "2", "a": "1\0\n", "ž": ""}) == (b"a=1\n", b"b=2", "ž=".encode())
    many = labels_of({f"{number:04}": "x" * 5_000 for number in range(1_000)})
    assert (len(many), {len(label) for label in many}, many[0][:6]) == (LABELS_MAX, {LABEL_BYTES_MAX}, b"0000=x")


def test_what_json_can_say_and_utf8_cannot() -> None:
    """Found by fuzzing."""
    assert read(b'{"linux": {"cgroupsPath": "/a\\ud800"}}').cgroup == b"/a?"
    half = json.loads('"\\ud800"')
    facts = facts_of(half, {"a": half, half: "b"}, image=half, image_digest=b"", created_ns=0, privileged=False)
    assert (facts.name, facts.image, facts.labels) == (b"?", b"?", (b"a=?", b"?=b"))
