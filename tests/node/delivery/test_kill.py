"""A process that writes into a spool is killed at any moment, again and again: every row is stored, or told as lost, and none is both."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.node.delivery.spools import delivered, opened
from tests.node.delivery.writing import told_by

ROOT = Path(__file__).resolve().parents[3]


async def life(directory: Path, seed: int, lasts_s: float) -> list[str]:
    """One life of the process; what it said."""
    command = [sys.executable, "-m", "tests.node.delivery.writing", str(directory), str(seed)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert process.stdout
    first = await asyncio.wait_for(process.stdout.readline(), 60)
    reading = asyncio.ensure_future(process.stdout.read())
    await asyncio.sleep(lasts_s)  # any moment will do
    process.kill()
    said = first + await reading
    await process.wait()
    return said.decode().splitlines()


async def lives(directory: Path, kills: int) -> None:
    random_ = random.Random(kills)
    takes: Counter[str] = Counter()
    took: Counter[str] = Counter()
    stored: dict[tuple[int, int], tuple[str, int, str]] = {}
    epochs: list[int] = []
    for seed in range(kills):
        for line in await life(directory, seed, random_.uniform(0, 0.25)):
            what, *more = line.split()
            if what == "epoch":
                epochs.append(int(more[0]))
            elif what == "stored":
                stored[int(more[0]), int(more[1])] = more[2], int(more[3]), "".join(more[4:])
            else:
                (takes if what == "takes" else took)[more[0]] += int(more[1])
    spool = opened(directory)
    left = {id: (kind, rows, told_by(data) if kind == "loss" else "") for id, kind, rows, data in delivered(spool)}
    assert all(stored[id] == left[id] for id in stored.keys() & left.keys()), "what is sent again is the same"
    stored |= left
    lost: Counter[str] = Counter()
    for loss in spool.ledger.take():
        lost[loss.probe] += loss.count
    spool.close()
    assert epochs == sorted(set(epochs)), "each life has a larger one"
    got: Counter[str] = Counter()
    for kind, rows, told in stored.values():
        got[kind] += rows
        for each in filter(None, told.split(",")):
            lost[each.split("=")[0]] += int(each.split("=")[1])
    for kind, most in takes.items():  # of the last rows that a life was about to take, it is not known whether it did
        assert took[kind] <= got[kind] + lost[kind] <= most, f"{kind}: {took[kind]} to {most} taken, {got[kind]} stored, {lost[kind]} lost"
    assert sum(takes.values()) - sum(took.values()) < 100 * kills
    assert sum(lost.values()) > 0


async def test_killed_a_few_times(tmp_path: Path) -> None:
    await lives(tmp_path / "spool", 6)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_killed_two_hundred_times(tmp_path: Path) -> None:
    await lives(tmp_path / "spool", 200)
