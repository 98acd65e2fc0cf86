"""Maps of the kernel side, read and emptied many values at a time."""


import numpy as np
import pytest

from infrasight.kernel.bpf import Map
from tests.kernel.maps import _bpf

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


def make_map(kind: int, keys: int, size: int) -> Map:
    """A hash map (1) or an array (2) of this very test, filled: each value is its key, repeated."""
    fd = _bpf(0, b"".join(number.to_bytes(4, "little") for number in (kind, 4, size, keys)))
    assert fd >= 0
    made = Map(fd, 4, size)
    for key in range(keys):
        made.update(key.to_bytes(4, "little"), key.to_bytes(4, "little") * (size // 4))
    return made


@pytest.mark.parametrize("kind", [1, 2], ids=["hash", "array"])
@pytest.mark.parametrize("most", [64, 512, 1000, 5000])
@pytest.mark.parametrize("keys", [1, 511, 512, 1000])
def test_maps_are_read_many_values_at_a_time(kind: int, most: int, keys: int) -> None:
    made = make_map(kind, keys, 24)
    found: list[int] = []
    for some, values in made.batches(most):
        assert len(some) == len(values) <= most
        numbers = np.ascontiguousarray(some).view(np.uint32).ravel()
        assert (np.ascontiguousarray(values).view(np.uint32) == numbers[:, None]).all()
        found += numbers.tolist()
    assert sorted(found) == list(range(keys))
    made.close()


@pytest.mark.parametrize("most", [64, 512, 5000])
def test_a_map_is_emptied_many_values_at_a_time(most: int) -> None:
    made, found, more = make_map(1, 1000, 24), [], True
    while more:
        keys, values, more = made.take(most)
        assert len(keys) == len(values) <= most
        numbers = np.ascontiguousarray(keys).view(np.uint32).ravel()
        assert (np.ascontiguousarray(values).view(np.uint32) == numbers[:, None]).all()
        found += numbers.tolist()
    assert sorted(found) == list(range(1000))
    assert made.all_keys() == []
    made.close()


def test_an_empty_map() -> None:
    made = Map(_bpf(0, b"".join(number.to_bytes(4, "little") for number in (1, 4, 24, 100))), 4, 24)
    assert [len(keys) for keys, _ in made.batches(512)] == [0]
    keys, _, more = made.take(512)
    assert (len(keys), more) == (0, False)
    made.close()
