"""Lines on a terminal, whatever the kernel saw."""

import io
import json

import pytest

from infrasight.actors import Mailbox
from infrasight.node.flow import Batch, Encoded
from infrasight.node.printer import Discarder, Printer
from infrasight.schema import KINDS
from tests.wire.batches import HOSTILE, START_NS, batch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def flush(self) -> None:
        raise BrokenPipeError


async def printed(output: str, stream: io.StringIO, *kinds: str) -> list[str]:
    inbox: Mailbox[Batch] = Mailbox("in", limit=len(KINDS))
    for kind in kinds:
        await inbox.put(Batch(kind, batch(kind, 24), START_NS))
    inbox.close()
    await Printer(inbox, output, stream).run()
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("kind", KINDS)
async def test_one_printable_line_for_each_event(kind: str) -> None:
    stream = io.StringIO()
    lines = await printed("compact", stream, kind)
    assert len(lines) == stream.getvalue().count("\n") == 24
    assert all(line.isprintable() for line in lines)
    assert all(kind in line for line in lines)


async def test_colour_is_for_terminals() -> None:
    """And the only escapes are ours: those of the events are shown as text."""
    lines = await printed("compact", Terminal(), "open")
    assert all("\x1b[" in line for line in lines)
    hostile = b"\x1b[31mred"
    assert hostile in HOSTILE
    assert not any(hostile.decode() in line for line in lines)
    assert any("\\e[31mred" in line for line in lines)
    assert "\x1b" not in "".join(await printed("compact", io.StringIO(), "open"))


async def test_json() -> None:
    lines = await printed("json", Terminal(), *KINDS)
    events = [json.loads(line) for line in lines]
    assert len(events) == 24 * len(KINDS)
    assert [event["kind"] for event in events[::24]] == list(KINDS)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert list(events[0]) == ["kind", *(column.name for column in KINDS["execve"].columns)]
    assert events[24]["ts"].endswith("Z")


async def test_it_ends_when_nobody_reads() -> None:
    inbox: Mailbox[Batch] = Mailbox("in", limit=10)
    await inbox.put(Batch("open", batch("open", 1), START_NS))
    await Printer(inbox, "compact", Gone()).run()
    assert not inbox.closed, "it ended by itself"


async def test_the_discarder_takes_everything() -> None:
    inbox: Mailbox[Encoded] = Mailbox("in", limit=10)
    for seq in range(5):
        await inbox.put(Encoded(seq, "open", 1, b"x", 0))
    inbox.close()
    await Discarder(inbox).run()
    assert inbox.statistics().delivered == 5
