"""Records of dns: what a name server of our own was asked and answered, against what it says itself."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infrasight.node.names.answers import Answers
from infrasight.node.names.dns import Message, address_text, decode
from infrasight.schema.events.dns import ANSWER, QUERY
from tests.kernel.sockets import ends_of
from tests.kernel.tap import Record, Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "ip")]
SERVER = Path(__file__).with_name("name_server.py")


def name_server(how: str, directory: Path) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-S", SERVER, how, directory], stdout=subprocess.PIPE, text=True, check=True)
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def message(record: Record) -> Message:
    assert record["bytes"] >= len(record["message"]) == min(record["bytes"], 512)
    return decode(record["message"])


def test_every_call(tap: Tap, tmp_path: Path) -> None:
    said = name_server("every_call", tmp_path)
    records = tap.records("dns", pid=said["pid"])
    queries, answers = ([r for r in records if r["action"] == action] for action in (QUERY, ANSWER))
    # Of the one call that had eleven, the first eight.
    assert [[message(r).id, message(r).name.decode(), message(r).qtype, r["ret"]] for r in queries] == said["told"]
    assert len(queries) == 27
    by_id = {number: rest for number, *rest in said["seen"]}
    told = [[message(r).id, r["ret"]] for r in answers]
    assert told == said["answers"]
    for record in answers:
        found = message(record)
        if found.id == 52:
            continue
        name, qtype, rcode, addresses = by_id[found.id]
        assert (found.name.decode(), found.qtype, found.rcode) == (name, qtype, rcode)
        assert [address_text(each).decode() for each in found.addresses] == addresses
    for record in records:
        peer, local = ends_of(record)
        assert peer[1] == 53
        elsewhere = {50: "192.0.2.1", 51: "192.0.2.1", 53: "::1", 54: "::ffff:127.0.0.1", 72: "127.0.0.2", 73: "127.0.0.2"}
        assert peer[0] == elsewhere.get(message(record).id, "127.0.0.1")
        assert (record["socket_type"], record["socket_protocol"]) == (2, 17)
        assert local[1] > 0 or message(record).id in (50, 51)
    # One socket asked the odd ones of the first five, another the even ones and the fifth.
    ports = {message(r).id: r["sport"] for r in queries if message(r).id <= 5}
    assert ports[1] == ports[3] != ports[2] == ports[4] == ports[5]


def test_programs_that_use_libc(tap: Tap, tmp_path: Path) -> None:
    said = name_server("libc", tmp_path)
    records = tap.records("dns", pid=said["pid"])
    queries, answers = ([message(r) for r in records if r["action"] == action] for action in (QUERY, ANSWER))
    many = ["10.0.1.1", "10.0.1.2", "10.0.1.3"]
    assert said["told"] == [["one.test", ["10.0.0.1"]], ["many.test", many], ["six.test", ["fd00::6"]], ["no.test", []]]
    assert sorted([q.id, q.name.decode(), q.qtype] for q in queries) == sorted(each[:3] for each in said["seen"])
    told = [[a.id, a.name.decode(), a.qtype, a.rcode, [address_text(each).decode() for each in a.addresses]] for a in answers]
    assert sorted(told) == sorted(said["seen"])
    assert [(q.name, q.qtype) for q in queries[:2]] == [(b"one.test", 1), (b"one.test", 28)], "asked for in one call, told as two"
    assert len(queries) == 6
    answers_of = Answers()
    for record in records:
        if record["action"] == QUERY:
            answers_of.ask(record["pid"], record["enter_ns"], message(record))
        else:
            answers_of.learn(record["pid"], record["enter_ns"] + record["latency_ns"], message(record))
    names = {}
    for connect in tap.records("connect", pid=said["pid"], dport=80):
        family = connect["family"]
        address = connect["daddr"][: 4 if family == socket.AF_INET else 16]
        names[address_text(address).decode()] = answers_of.name(connect["pid"], address, connect["enter_ns"]).decode()
    assert names == {address: name for name, addresses in said["told"] for address in addresses}
    assert len(names) == 5
