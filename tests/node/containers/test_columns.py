"""The columns of containers: made once for the same ones, and anew whenever something is known that was not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from infrasight.node.columns import Distinct
from infrasight.node.containers.columns import Contained, told
from infrasight.node.containers.containment import NOWHERE, Container
from infrasight.node.containers.table import Containers
from infrasight.runtimes import Facts, Key
from infrasight.schema.parts import TOLD

A, B = Container(b"a", b"docker", b"pod"), Container(b"b", b"docker")
HERE = Distinct(np.array([0, 1, 2, 0], np.int32), [])


def rows(columns: dict[str, Any]) -> list[tuple[bytes, ...]]:
    names = ("container_id", "image", "identity")
    return list(zip(*(columns[name].to_pylist() for name in names), strict=True))


def test_they_are_those_that_runtimes_tell() -> None:
    assert set(told(HERE, [Facts()] * 3)) == set(TOLD)


def test_they_are_made_once_for_the_same_containers() -> None:
    containers = Containers()
    containers.shelf("s").learn(Key(b"a"), Facts(image=b"one"))
    contained, inside = Contained(containers), [A, B, NOWHERE]
    first = contained.columns(HERE, inside)
    assert rows(first) == [(b"a", b"one", b"complete"), (b"b", b"", b"path"), (b"", b"", b""), (b"a", b"one", b"complete")]
    again = contained.columns(HERE, [A, B, NOWHERE])
    assert again == first
    image, before = again["image"], first["image"]
    assert isinstance(image, pa.DictionaryArray)
    assert image.dictionary.buffers()[2].address == before.dictionary.buffers()[2].address


def test_what_becomes_known_is_seen() -> None:
    containers = Containers()
    contained, inside = Contained(containers), [A, B, NOWHERE]
    assert rows(contained.columns(HERE, inside))[1] == (b"b", b"", b"path")
    containers.are_told_of({b"": {b"docker"}})
    assert rows(contained.columns(HERE, inside))[1] == (b"b", b"", b"pending")
    containers.shelf("s").learn(Key(b"b"), Facts(image=b"one"))
    assert rows(contained.columns(HERE, inside))[1] == (b"b", b"one", b"complete")
    containers.shelf("s").learn(Key(b"b"), Facts(image=b"two"))
    assert rows(contained.columns(HERE, inside))[1] == (b"b", b"two", b"complete")
    assert rows(contained.columns(HERE, [B, A, NOWHERE]))[1] == (b"a", b"", b"pending")
    nobody = contained.columns(HERE, [NOWHERE] * 3)
    assert rows(nobody) == [(b"", b"", b"")] * 4
    assert rows(contained.columns(HERE, inside))[1] == (b"b", b"two", b"complete")


def test_of_a_pod_that_is_known_before_its_container_is() -> None:
    """What the API server says of it is there, and the container is awaited all the same; outside of one, in the pod, too."""
    containers = Containers()
    containers.are_told_of({b"": {b"docker"}})
    contained, inside = Contained(containers), [A, B, Container(pod_uid=b"pod")]
    names = ("pod_name", "pod_namespace", "workload", "container_labels", "image", "identity")

    def found() -> list[tuple[bytes, ...]]:
        columns = contained.columns(HERE, inside)
        return list(zip(*(columns[name].to_pylist() for name in names), strict=True))[:3]

    assert found() == [(b"",) * 5 + (b"pending",), (b"",) * 5 + (b"pending",), (b"",) * 6]
    containers.pods.learn(Key(b"pod"), Facts(pod_name=b"p", pod_namespace=b"n", pod_uid=b"pod", workload=b"Job/j", pod_labels=(b"a=1", b"b=2")))
    told = b"p", b"n", b"Job/j", b"a=1\0b=2", b""
    assert found() == [(*told, b"pending"), (b"",) * 5 + (b"pending",), (*told, b"")]
    containers.shelf("s").learn(Key(b"a"), containers.in_pod(Facts(image=b"i", pod_uid=b"pod", labels=(b"a=own",))))
    assert found()[0] == (b"p", b"n", b"Job/j", b"a=own\0b=2", b"i", b"complete")
