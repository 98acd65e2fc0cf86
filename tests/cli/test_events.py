"""`infrasight events`: what is stored, and what happens now."""

from __future__ import annotations

import json
import os
import pty
import re
import sys
import threading

import pytest

from infrasight.cli.events import newest
from infrasight.cli.main import main
from infrasight.cli.options import EventsOptions, Span
from infrasight.schema import KINDS, SHIPPED
from infrasight.wire import Event
from infrasight.wire._generated.query.infrasight.v1 import Connect, Loss, Open
from tests.cli.stub import Stub, served

NS = 1_700_000_000_000_000_000


def opened(number: int, **more: object) -> Event:
    row = {"ts": NS + number, "node": "box", "pid": 100 + number, "user": "root", "comm": "cat", "path": f"/etc/{number}", "ret": 3}
    return Event(open=Open(**(row | more)))


def stored(sql: str, _format: str) -> list[bytes]:
    """Three opens and a loss, newest first."""
    if " FROM `open` " in sql:
        rows = [{"ts": NS + n, "node": "box", "pid": n, "user": "root", "comm": "cat", "path": f"/{n}", "flags": 0, "ret": n} for n in (3, 2, 1)]
    elif " FROM `loss` " in sql:
        rows = [{"ts": NS + 2, "since": NS, "node": "box", "probe": "open", "reason": "ring_full", "count": 9}]
    else:
        rows = []
    return [json.dumps(row).encode() + b"\n" for row in rows]


def test_the_last_of_all_kinds_in_order_of_time(capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(stored)
    with served(stub) as port:
        assert main(["events", "--last", "3", "--server-port", port]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        "2 root     cat             open           /2 rdonly → 2",
        "loss           9 open events lost (ring_full)",
        "3 root     cat             open           /3 rdonly → 3",
    ]
    assert len(stub.asked) == len([kind for kind in SHIPPED if not KINDS[kind].account])
    assert all(sql.endswith(" LIMIT 3") for sql in stub.asked)


def test_stored_events_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with served(Stub(stored)) as port:
        assert main(["events", "--type", "open", "-o", "json", "--server-port", port]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ts"][-4:] for row in rows] == ["001Z", "002Z", "003Z"]
    assert rows[0]["kind"] == "open"


def test_filters_become_conditions() -> None:
    who = {"comm": ("a'b",), "user": ("root", "x"), "pid": (1, 2), "container": ("0a", "'"), "image": ("a'b",), "pod": ("web",)}
    options = EventsOptions(path=("/etc", "/tmp/"), ancestor=("sshd", "a'"), since=Span("5m"), **who)
    sql = newest(KINDS["open"], options, 7)
    assert r"e.comm IN ('a\'b') AND e.user IN ('root', 'x') AND e.pid IN (1, 2)" in sql
    given, leads = "startsWith(e.path, '/etc') OR startsWith(e.path, '/tmp/')", "startsWith(e.path_resolved, '/etc')"
    containers = r"((startsWith(e.container_id, '0a') OR startsWith(e.container_id, '\'')) OR e.container_name IN ('0a', '\''))"
    more = r"(startsWith(e.pod_name, 'web')) AND hasAny(e.ancestors, ['sshd', 'a\''])"
    images = r"(position(e.image, 'a\'b') > 0)"
    path = f"({given} OR {leads} OR startsWith(e.path_resolved, '/tmp/'))"
    assert f"{path} AND {containers} AND {more} AND {images} AND e.ts >= fromUnixTimestamp64Nano(" in sql
    assert sql.endswith("ORDER BY e.ts DESC LIMIT 7")


def test_kinds_without_the_column_are_not_asked_about(capsys: pytest.CaptureFixture[str]) -> None:
    stub = Stub(stored)
    with served(stub) as port:
        assert main(["events", "--path", "/etc", "--server-port", port]) == 0
        asked = {sql.split("FROM ")[1].split("`")[1] for sql in stub.asked}
        stub.asked.clear()
        assert main(["events", "--container", "0a", "--server-port", port]) == 0
    assert asked == {kind.name for kind in KINDS.values() if kind.paths}
    assert {sql.split("FROM ")[1].split("`")[1] for sql in stub.asked} == {kind for kind in SHIPPED if not KINDS[kind].account} - {"loss"}
    capsys.readouterr()


def test_following_filters_at_the_server_and_says_when_it_stops(capsys: pytest.CaptureFixture[str]) -> None:
    loss = Event(loss=Loss(ts=NS, node="other", probe="open", reason="ring_full", count=1))
    stub = Stub(events=[opened(1), opened(2, path="\x1b]0;\n", comm="\u202e"), loss], dropped=1234)
    with served(stub) as port:
        argv = ["events", "-f", "--type=open,loss", "--comm=a,b", "--user=root", "--pid=7", "--pid=8", "--path=/etc", "--container=0a"]
        assert main([*argv, "--image=nginx", "--pod=web", "--ancestor=sshd,x", "--server-port", port]) == 1
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    assert [" box " in line or " other " in line for line in lines] == [False, False, True]
    assert said.err == "infrasight: 1,234 events were not shown: the output was too slow\ninfrasight: the server has stopped\n"
    (filter,) = stub.filters
    assert (filter.kinds, filter.comms, filter.users, filter.pids) == (["open", "loss"], ["a,b"], ["root"], [7, 8])
    assert (filter.path_prefixes, filter.containers, filter.images) == (["/etc"], ["0a"], ["nginx"])
    assert (filter.pods, filter.ancestors) == (["web"], ["sshd,x"])


def test_followed_events_as_json_have_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    with served(Stub(events=[Event(connect=Connect(ts=NS, dport=443))])) as port:
        main(["events", "--follow", "--output", "json", "--server-port", port])
    row = json.loads(capsys.readouterr().out)
    assert set(row) == {"kind", *(column.name for column in KINDS["connect"].columns)}


@pytest.mark.parametrize("argv", [["--type", "nope"], ["--follow", "--last", "3"], ["--follow", "--since", "5m"], ["--since", "5 weeks"]])
def test_bad_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["events", *argv])
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
    line = capsys.readouterr().err
    assert line.startswith("infrasight: ")
    assert line.count("\n") == 1


def on_a_terminal(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command writes to a terminal, which is 80 columns wide or of no known width."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []
    reader = threading.Thread(target=lambda: seen.extend(iter(lambda: _read(ours), b"")))
    reader.start()
    with monkeypatch.context() as patch, os.fdopen(theirs, "w") as terminal:
        patch.setattr(sys, "stdout", terminal)
        main(argv)
    reader.join(10)
    os.close(ours)
    return b"".join(seen).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other side is closed
        return b""


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(Stub(stored)) as port:
        argv = ["events", "--type", "open", "--server-port", port]
        assert re.search(r"\x1b\[\d+m", on_a_terminal(argv, monkeypatch))
        assert "\x1b" not in on_a_terminal([*argv, "--no-color"], monkeypatch)
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b" not in on_a_terminal(argv, monkeypatch)
