"""Columns against the same written plainly, row by row, over strings that nobody would choose."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrasight.kernel import Records
from infrasight.node.columns import (
    FEW,
    Distinct,
    constant,
    encode,
    encode_bytes,
    encode_c_strings,
    encode_padded,
    encode_pairs,
    named,
    numbers,
    pack,
    renamed,
    split_words,
    strings,
    trimmed,
)
from tests.node.records import make

HOSTILE = st.sampled_from([b"\xff\xfe", b"new\nline", b"\x1b[31m", b"\x80" * 9, b"a" * 7, b"a" * 8, b"a" * 9, b" ", "žluť".encode()])
NO_NUL = st.one_of(HOSTILE, st.binary(max_size=40).map(lambda text: text.replace(b"\0", b"\1")))
ANY = st.one_of(HOSTILE, st.binary(max_size=60), st.just(b"\0"), st.just(b"\0" * 8))
quick = settings(max_examples=80, deadline=None)


@pytest.fixture(autouse=True, scope="module", params=[-1, FEW], ids=["as many", "as few"])
def few(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways that columns are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("infrasight.node.columns.FEW", request.param)
        patch.setattr("infrasight.node.columns.FEW_TEXTS", request.param)
        yield


def plain(array: pa.Array) -> list[object]:
    """What it holds, after Arrow has checked it thoroughly."""
    array.validate(full=True)
    return list(array.to_pylist())


def compact(array: pa.DictionaryArray) -> bool:
    """No value of the dictionary twice, none unused."""
    values = array.dictionary.to_pylist()
    return len(set(values)) == len(values) and set(array.indices.to_pylist()) == set(range(len(values)))


@quick
@given(st.lists(NO_NUL, min_size=1, max_size=30))
def test_c_strings(texts: list[bytes]) -> None:
    for name in ("open", "open_medium", "open_long", "execve"):
        encoded = encode_c_strings(make(name, len(texts), path=texts), "path")
        assert plain(encoded) == texts
        assert compact(encoded)


def test_c_strings_that_fill_their_slot() -> None:
    for name, width in (("open", 79), ("open", 80), ("open_medium", 512), ("open_long", 4095), ("open_long", 4096), ("execve", 128)):
        texts = [b"x" * width, b"", b"y" * (width - 1), b"x" * width]
        assert plain(encode_c_strings(make(name, 4, path=texts), "path")) == texts


@quick
@given(st.lists(ANY, min_size=1, max_size=30))
def test_bytes(texts: list[bytes]) -> None:
    encoded = encode_bytes(make("connect", len(texts), path=texts), "path")
    assert plain(encoded) == texts
    assert compact(encoded)


def with_places(name: str, each: list[tuple[bytes, bytes, int]]) -> Records:
    paths, places, flags = (list(column) for column in zip(*each, strict=True))
    return make(name, len(each), path=paths, path_place=places, path_whole=flags)


@quick
@given(st.lists(st.tuples(NO_NUL, ANY, st.integers(0, 3)), min_size=1, max_size=30), st.sampled_from(["open", "open_long", "chmod"]))
def test_pairs(each: list[tuple[bytes, bytes, int]], name: str) -> None:
    """Whatever lies behind the strings, two rows are one pair when both strings and the number are the same."""
    pairs = encode_pairs(with_places(name, each), "path", "path_place", "path_whole")
    assert [pairs.values[code] for code in pairs.codes] == each
    assert len(set(pairs.values)) == len(pairs.values) == len(set(each))
    assert plain(pairs.name([b"|".join([one, other, b"%d" % number]) for one, other, number in pairs.values])) == [
        b"|".join([one, other, b"%d" % number]) for one, other, number in each
    ]


def test_pairs_that_look_alike_joined() -> None:
    """Where one string ends and the other begins is part of it."""
    given = [(b"ab", b"c", 0), (b"a", b"bc", 0), (b"", b"abc", 0), (b"ab", b"c", 0)]
    pairs = encode_pairs(with_places("open", given), "path", "path_place", "path_whole")
    assert [pairs.values[code] for code in pairs.codes] == given
    assert encode_pairs(make("open", 0), "path", "path_place", "path_whole").values == []


def test_full_pairs() -> None:
    one, other = b"x" * 4096, b"y" * 4096
    given = [(one, other, 1), (one, b"", 2), (b"", other, 3)]
    pairs = encode_pairs(with_places("open_long", given), "path", "path_place", "path_whole")
    assert [pairs.values[code] for code in pairs.codes] == given


def words(text: bytes) -> list[bytes]:
    """Each ends with a NUL, but the last one need not."""
    found = text.split(b"\0")
    return found if found[-1] else found[:-1]


@quick
@given(st.lists(st.one_of(ANY, st.lists(NO_NUL, max_size=6).map(lambda each: b"".join(word + b"\0" for word in each))), min_size=1, max_size=30))
def test_words(texts: list[bytes]) -> None:
    texts = [text[:256] for text in texts]
    for name in ("execve", "execve_long"):
        assert plain(split_words(make(name, len(texts), argv=texts), "argv")) == [words(text) for text in texts]


def test_words_of_a_full_slot() -> None:
    texts = [b"a" * 4096, b"b\0" * 2048, b"\0" * 4096, b"", (b"c" * 4095) + b"\0"]
    assert plain(split_words(make("execve_long", 5, argv=texts), "argv")) == [words(text) for text in texts]


@quick
@given(st.lists(st.binary(max_size=16).map(lambda text: text.replace(b"\0", b"")), min_size=1, max_size=30))
def test_padded(texts: list[bytes]) -> None:
    cells = np.frombuffer(b"".join(text.ljust(16, b"\0") for text in texts), np.uint8).reshape(-1, 16)
    encoded = encode_padded(cells)
    assert plain(encoded) == texts
    assert compact(encoded)


@quick
@given(st.lists(st.binary(min_size=5, max_size=5), max_size=20), st.data())
def test_pack(cells: list[bytes], data: st.DataObject) -> None:
    lengths = [data.draw(st.integers(0, 5)) for _ in cells]
    packed = pack(np.frombuffer(b"".join(cells), np.uint8).reshape(len(cells), 5), np.array(lengths, np.uint32))
    assert plain(packed) == [cell[:length] for cell, length in zip(cells, lengths, strict=True)]


@quick
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 3), max_size=50))
def test_distinct(numbers: list[int]) -> None:
    distinct = Distinct.of(np.array(numbers, np.uint64))
    assert [int(distinct.values[code]) for code in distinct.codes] == numbers
    assert len(set(distinct.values)) == len(distinct.values)
    assert distinct.first().tolist() == [numbers.index(int(value)) for value in distinct.values]
    names = [b"odd" if value % 2 else b"even" for value in distinct.values]
    encoded = distinct.name(names)
    assert plain(encoded) == [b"odd" if number % 2 else b"even" for number in numbers]
    assert len(encoded.dictionary) == len(set(names)), "two values with one name are one entry"


def test_a_name_is_asked_for_once_for_each_value() -> None:
    asked: list[int] = []

    def name(number: int) -> bytes:
        asked.append(number)
        return b"\xff%d" % number

    assert plain(named(np.array([5, 5, 1, 5, 1], np.uint32), name)) == [b"\xff5", b"\xff5", b"\xff1", b"\xff5", b"\xff1"]
    assert sorted(asked) == [1, 5]


@quick
@given(st.lists(ANY, min_size=1, max_size=30))
def test_renamed(texts: list[bytes]) -> None:
    """What becomes equal becomes one."""
    encoded = renamed(encode_bytes(make("connect", len(texts), path=texts), "path"), lambda text: text[:1])
    assert plain(encoded) == [text[:1] for text in texts]
    assert compact(encoded)
    part = encoded.slice(len(texts) // 3, len(texts) // 2)
    assert plain(renamed(part, bytes.upper)) == [text.upper() for text in plain(part)], "of a part too"


@quick
@given(st.lists(ANY, max_size=30))
def test_strings(texts: list[bytes]) -> None:
    assert plain(strings(texts)) == texts


@pytest.mark.parametrize("kind", [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int32(), pa.int64()], ids=str)
def test_numbers(kind: pa.DataType) -> None:
    dtype = np.dtype(kind.to_pandas_dtype())
    values = np.array([0, 1, np.iinfo(dtype).max, np.iinfo(dtype).min], dtype)
    assert (plain(numbers(values, kind)), numbers(values, kind).type) == (values.tolist(), kind)
    assert plain(numbers(values[:0], kind)) == []


def test_constant() -> None:
    assert plain(constant(b"\xffnode", 3)) == [b"\xffnode"] * 3
    assert plain(constant(b"node", 0)) == []


@quick
@given(st.lists(st.sampled_from([b"", b"sh", b"cc1", b"\xff"]), min_size=1, max_size=12), st.data())
def test_what_a_slice_has_of_its_own(texts: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(texts) - 1))
    rows = data.draw(st.integers(0, len(texts) - start))
    sliced = encode(texts).slice(start, rows)
    assert plain(trimmed(sliced)) == texts[start : start + rows]
    assert len(trimmed(sliced).dictionary) <= max(rows, 0)
    assert compact(trimmed(sliced)) or len(sliced.dictionary) <= rows
    assert trimmed(numbers(np.arange(3, dtype=np.int32), pa.int32())).to_pylist() == [0, 1, 2]


def test_no_rows() -> None:
    assert plain(pack(np.zeros((0, 5), np.uint8), np.zeros(0, np.uint32))) == []
    assert plain(split_words(make("execve", 0), "argv")) == []
    assert plain(encode_bytes(make("connect", 0), "path")) == []
    assert plain(named(np.zeros(0, np.uint32), lambda _: b"never")) == []


@pytest.mark.parametrize("rows", [1, 50_000])
def test_many_rows(rows: int) -> None:
    paths = [b"/dir/%d/\xff" % (number % 977) + b"x" * (number % 60) for number in range(rows)]
    assert plain(encode_c_strings(make("open", rows, path=paths), "path")) == paths
    argv = [b"\0".join([b"prog", b"", b"%d" % (number % 101)]) + b"\0" * (number % 2) for number in range(rows)]
    assert plain(split_words(make("execve", rows, argv=argv), "argv")) == [words(text) for text in argv]


def test_the_records_are_not_written_to() -> None:
    """Whoever holds a drain owns it, and columns are made from it several times."""
    records = make("open", 3, path=[b"abc", b"d", b""])
    before = records["path"].tobytes()
    records["path"].setflags(write=False)
    encode_c_strings(records, "path")
    assert records["path"].tobytes() == before
