"""`python -m tests.node.delivery.writing DIRECTORY SEED`: a node's spool in a process of its own, which a test kills at any moment.

It takes in rows, writes most of them down, gives up what it has no room for, tells what is lost, and has some acknowledged, as a server would that
stores what it is sent and whose Ack may never be heard. On its standard output it says what it is about to take, what it took, and what is stored."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

from infrasight.node.delivery.lane import Held, Id
from infrasight.node.flow import Encoded
from infrasight.node.ledger import losses_in
from tests.node.delivery.spools import KINDS, opened, payload, telling


def told_by(payload: bytes) -> str:
    """What rows of `loss` say, in one word."""
    return ",".join(f"{loss.probe}={loss.count}" for loss in losses_in(payload))


def main() -> None:
    directory, random_ = Path(sys.argv[1]), random.Random(sys.argv[2])
    spool = opened(directory, bytes=1 << 20, fsync_s=0.01)
    os.write(1, b"epoch %d\n" % spool.epoch)
    begun: dict[Id, list[Held]] = {}
    seq = 1
    while True:
        seq += 1
        kind, rows = random_.choice(KINDS), random_.randrange(1, 100)
        os.write(1, b"takes %s %d\n" % (kind.encode(), rows))
        spool.tally.take(kind, rows)
        os.write(1, b"took %s %d\n" % (kind.encode(), rows))
        if random_.random() < 0.9:  # the others are still in memory
            data = b"%d %d " % (spool.epoch, seq)
            spool.append(Encoded(seq, kind, rows, data * random_.randrange(1, 500), 1))
        if random_.random() < 0.1 and (losses := spool.ledger.take()) and random_.random() < 0.9:
            seq += 1
            spool.tally.take("loss", len(losses))
            spool.append(telling(seq, losses))
        while random_.random() < 0.3 and (held := spool.next()):
            data = payload(spool, held)
            assert data is not None
            pieces = begun.setdefault(held.id, [])
            pieces.append(held)
            if not held.more:
                del begun[held.id]
                told = told_by(data) if held.kind == "loss" else ""
                os.write(1, b"stored %d %d %s %d %s\n" % (*held.id, held.kind.encode(), held.rows, told.encode()))
                spool.done(pieces)
        if random_.random() < 0.05:
            spool.sync()


if __name__ == "__main__":
    main()
