"""A spool that a disk, a crash or a person has damaged: what is sound is delivered once, what is not is skipped and counted, and nothing fails."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from infrasight.node.delivery.lane import Id
from infrasight.node.delivery.leftovers import Seen
from infrasight.node.delivery.record import MAGIC, Header
from infrasight.node.delivery.segment import Segment
from infrasight.node.flow import Encoded
from tests.node.delivery.spools import KINDS, delivered, killed, opened, piece

SEEDS = 1_000
BATCHES = 60


def filled(directory: Path, random_: random.Random) -> dict[Id, list[Encoded]]:
    """Two lives' batches, whole and in pieces, of all lanes, in several segments; none of them delivered."""
    batches: dict[Id, list[Encoded]] = {}
    for life in range(2):
        spool = opened(directory, bytes=1 << 20)
        waiting: list[Encoded] = []
        for seq in range(1, BATCHES // 2 + 1):
            kind, size = random_.choice(KINDS), random_.choice((0, 14, 100, 3_000, 20_000))
            count = random_.choice((1, 1, 1, 2, 3))
            parts = [piece(seq, kind, rows=random_.randrange(1, 9), size=size, more=n + 1 < count, number=n) for n in range(count)]
            batches[spool.epoch, seq] = parts
            spool.append(parts[0])
            waiting += parts[1:]
            while waiting and random_.random() < 0.5:
                spool.append(waiting.pop(0))
        for each in waiting:
            spool.append(each)
        spool.sync()
        assert life or spool.segments > 2
        killed(spool)
    return batches


def flip(segments: list[Path], random_: random.Random) -> None:
    """Bits anywhere."""
    for _ in range(random_.randrange(1, 4)):
        path = random_.choice(segments)
        data = bytearray(path.read_bytes())
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
        path.write_bytes(data)


def truncate(segments: list[Path], random_: random.Random) -> None:
    """A tail is gone."""
    path = random_.choice(segments)
    os.truncate(path, random_.randrange(path.stat().st_size))


def remove(segments: list[Path], random_: random.Random) -> None:
    """A segment is gone."""
    random_.choice(segments).unlink()


def duplicate(segments: list[Path], random_: random.Random) -> None:
    """A segment is there twice, under a number that was not used."""
    path = random_.choice(segments)
    shutil.copy(path, path.with_name(f"{path.name.split('-')[0]}-{random_.randrange(500, 1000):010d}.seg"))


def swap(segments: list[Path], random_: random.Random) -> None:
    """Two segments of one lane have each other's contents."""
    path = random_.choice(segments)
    other = random_.choice([each for each in segments if each.name.split("-")[0] == path.name.split("-")[0]])
    one, two = path.read_bytes(), other.read_bytes()
    path.write_bytes(two)
    other.write_bytes(one)


def overwrite(segments: list[Path], random_: random.Random) -> None:
    """A block of zeros, or of noise, in the middle."""
    path = random_.choice(segments)
    data = bytearray(path.read_bytes())
    start, size = random_.randrange(len(data)), random_.choice((1, 512, 4096))
    data[start : start + size] = random_.choice((bytes(size), random_.randbytes(size), (MAGIC * 1024)[:size]))
    path.write_bytes(data)


DAMAGES: tuple[Callable[[list[Path], random.Random], None], ...] = (flip, truncate, remove, duplicate, swap, overwrite)


def records(directory: Path) -> dict[Id, dict[int, Header]]:
    """What is sound, found by looking at every byte that could begin a record."""
    sound: dict[Id, dict[int, Header]] = {}
    for segment in filter(None, map(Segment.found, directory.glob("*.seg"))):
        data = segment.path.read_bytes()
        place = data.find(MAGIC)
        while place >= 0:
            header = segment.header_at(place)
            if header is not None and segment.payload_of(place, header) is not None:
                sound.setdefault((header.epoch, header.seq), {})[header.piece] = header
            place = data.find(MAGIC, place + 1)
    return sound


@pytest.mark.parametrize("part", range(10))
def test_a_thousand_kinds_of_damage(part: int, tmp_path: Path) -> None:
    for seed in range(part, SEEDS, 10):
        directory = tmp_path / str(seed)
        _one(directory, random.Random(seed), f"seed {seed}")
        shutil.rmtree(directory)


def _one(directory: Path, random_: random.Random, which: str) -> None:
    batches = filled(directory, random_)
    segments = sorted(directory.glob("*.seg"))
    for damage in random_.choices(DAMAGES, k=random_.choice((1, 1, 2, 3))):
        damage([path for path in segments if path.exists() and path.stat().st_size], random_)
    expected = records(directory)
    spool = opened(directory, bytes=1 << 30)
    out = delivered(spool)
    count = Counter(id for id, *_ in out)
    assert max(count.values(), default=1) == 1, f"{which}: {count.most_common(1)} twice"
    payloads = {id: data for id, _, _, data in out}
    for id, parts in expected.items():
        want = b"".join(batches[id][number].payload for number in sorted(parts))
        assert payloads.get(id) == want, f"{which}: batch {id}"
    assert payloads.keys() == expected.keys(), which
    lost = any(len(expected.get(id, {})) < len(parts) for id, parts in batches.items())
    told = spool.skipped.total() - spool.skipped["twice"]
    last = {path.name.split("-")[0]: path for path in segments}.values()
    assert told or not lost or any(not path.exists() for path in last), f"{which}: damage that is not counted"
    assert spool.rows() == {}, which
    spool.close()
    again = opened(directory)
    assert delivered(again) == [], which
    again.close()


def test_a_cursor_that_is_damaged_has_all_delivered_again(tmp_path: Path) -> None:
    """Which the server stores once."""
    first = opened(tmp_path)
    for seq in range(1, 11):
        first.append(piece(seq))
    delivered(first, 4)
    first.close()
    data = bytearray((tmp_path / "cursors").read_bytes())
    data[16] ^= 1  # of the lane of opens
    (tmp_path / "cursors").write_bytes(data)
    assert [seq for (_, seq), *_ in delivered(opened(tmp_path))] == list(range(1, 11))


@pytest.mark.parametrize("name", ["cursors", "epoch", "tally", "note"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 5_000, b"x"])
def test_files_that_hold_nonsense_stop_nobody(name: str, content: bytes, tmp_path: Path) -> None:
    first = opened(tmp_path)
    for seq in range(1, 11):
        first.append(piece(seq))
    first.close()
    (tmp_path / name).write_bytes(content)
    spool = opened(tmp_path)
    assert (spool.disk.problem, len(delivered(spool))) == ("", 10)
    assert spool.epoch > first.epoch
    assert spool.ledger.take() == []
    spool.close()


def test_strange_files_are_left_alone(tmp_path: Path) -> None:
    for name in ("open-0000000001.seg", "activity-1.seg", "activity-0000000001.seg.bak", "README"):
        (tmp_path / name).write_text("mine")
    spool = opened(tmp_path)
    assert (spool.segments, delivered(spool)) == (0, [])
    spool.close()
    assert (tmp_path / "README").read_text() == "mine"


def test_seen_knows_any_number() -> None:
    seen = Seen()
    for id in ((1, 1), (1, 8), (2, 1), (1, 2**63), (2**63, 0)):
        assert seen.add(id)
        assert not seen.add(id)
