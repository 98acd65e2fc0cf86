"""Messages of name servers: honest ones, and whatever else may come."""

import socket
import struct
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.node.names.answers import ASKED_MOST, ASKED_NS, LEAST_NS, LONGER_NS, Answers
from infrasight.node.names.dns import Message, address_text, decode

QUERY, ANSWER = 0x0100, 0x8180
S = 1_000_000_000


def header(number: int = 7, flags: int = QUERY, answers: int = 0) -> bytes:
    return struct.pack(">6H", number, flags, 1, answers, 0, 0)


def name(*labels: bytes) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def question(*labels: bytes, qtype: int = 1) -> bytes:
    return name(*labels) + struct.pack(">HH", qtype, 1)


def record(owner: bytes, kind: int, data: bytes, ttl: int = 60, domain: int = 1) -> bytes:
    return owner + struct.pack(">HHIH", kind, domain, ttl, len(data)) + data


FOUR, SIX = socket.inet_aton("10.0.0.1"), socket.inet_pton(socket.AF_INET6, "fd00::1")
ASKED = b"\xc0\x0c"


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        ((b"example", b"org"), b"example.org"),
        ((b"eXAMple", b"ORG"), b"example.org"),
        ((), b"."),
        ((b"a.b", b"c\\d"), rb"a\.b.c\\d"),
        ((b"\x1b[31m\n\0 \xff",), rb"\027[31m\010\000\032\255"),
        ((b"x" * 63,) * 3 + (b"y" * 61,), b".".join([b"x" * 63] * 3 + [b"y" * 61])),
    ],
)
def test_names(labels: tuple[bytes, ...], shown: bytes) -> None:
    assert decode(header() + question(*labels, qtype=28)) == Message(7, False, 0, shown, 28)


@pytest.mark.parametrize(
    "asked",
    [
        b"",
        b"\x05abc",
        b"\x03abc",
        b"\x03abc\0\0\1",
        b"\xc0",
        b"\xc0\x0c\0\1\0\1",
        b"\xc0\x0d\0\1\0\1",
        b"\xff\xff\0\1\0\1",
        b"\x01a\xc0\x0c\0\1\0\1",
        b"\x40" + b"a" * 64 + b"\0\0\1\0\1",
        b"\x80\0\0\1\0\1",
        name(*[b"x" * 63] * 4) + b"\0\1\0\1",
        name(*[b"x"] * 128) + b"\0\1\0\1",
    ],
    ids=lambda asked: asked[:6].hex() or "nothing",
)
def test_what_makes_no_sense(asked: bytes) -> None:
    assert decode(header(9, ANSWER | 3) + asked) == Message(9, True, 3)


def test_the_longest_name_there_can_be() -> None:
    found = decode(header() + question(*[b"x"] * 127))
    assert found.name == b".".join([b"x"] * 127)


def test_answers_with_aliases() -> None:
    at = 12 + len(question(b"www", b"org"))
    records = [
        record(ASKED, 5, b"\x05alias\xc0\x10", ttl=7),
        record(struct.pack(">H", 0xC000 | at + 12), 1, FOUR, ttl=30),
        record(name(b"ALIAS", b"org"), 1, socket.inet_aton("10.0.0.2"), ttl=20),
        record(name(b"other", b"org"), 1, socket.inet_aton("6.6.6.6"), ttl=1),
        record(name(b"alias", b"org"), 28, SIX, ttl=90),
        record(name(b"alias", b"org"), 1, b"123", ttl=1),
        record(name(b"alias", b"org"), 1, FOUR, ttl=1, domain=3),
        record(name(b"alias", b"org"), 16, b"\x03txt"),
    ]
    whole = header(1, ANSWER, len(records)) + question(b"www", b"org") + b"".join(records)
    assert decode(whole) == Message(1, True, 0, b"www.org", 1, (FOUR, socket.inet_aton("10.0.0.2"), SIX), 20)
    cut = decode(whole[: whole.index(b"\x05ALIAS") + 20])
    assert (cut.name, cut.addresses) == (b"www.org", (FOUR,)), "what is there of a message that was cut off"


def test_a_query_gives_no_addresses() -> None:
    assert decode(header(1, QUERY, 1) + question(b"a") + record(ASKED, 1, FOUR)).addresses == ()


@given(st.binary(max_size=600))
def test_rubbish_does_no_harm(data: bytes) -> None:
    found = decode(data)
    assert len(found.name) <= 4 * 255
    assert all(0x21 <= byte <= 0x7E for byte in found.name)
    assert all(len(address) in (4, 16) for address in found.addresses)


@given(st.binary(max_size=500), st.integers(0, 65535))
def test_rubbish_in_an_answer_does_no_harm(data: bytes, count: int) -> None:
    found = decode(header(1, ANSWER, count) + question(b"a") + data)
    assert (found.name, found.qtype) == (b"a", 1)
    assert len(found.addresses) <= len(data) // 14


def test_pointers_cost_little() -> None:
    """Every record's owner is a chain of pointers as long as there can be: still no more than a few milliseconds."""
    chain = b"".join(struct.pack(">H", 0xC000 | max(12, 12 + 2 * step - 2)) for step in range(200))
    start = time.process_time()
    for _ in range(20):
        decode(header(1, ANSWER, 65535) + b"\0\0\1\0\1" + chain + b"\0" * 80)
    assert time.process_time() - start < 1


def answer(asked: bytes, *addresses: bytes, ttl: int = 0) -> Message:
    return Message(1, True, 0, asked, 1, addresses, ttl)


def learn(answers: Answers, process_id: int, when_ns: int, told: Message) -> None:
    """An answer to what was asked just then."""
    answers.ask(process_id, when_ns, replace(told, answer=False, addresses=()))
    answers.learn(process_id, when_ns, told)


def test_a_name_is_known_from_when_it_was_told_until_it_is_too_old() -> None:
    answers = Answers()
    learn(answers, 5, 10 * S, answer(b"a", FOUR, SIX, ttl=10_000))
    learn(answers, 6, 10 * S, answer(b"b", socket.inet_aton("1.1.1.1"), ttl=1))
    end = 10 * S + 10_000 * S + LONGER_NS
    assert [answers.name(5, FOUR, when) for when in (10 * S - 1, 10 * S, end - 1, end)] == [b"", b"a", b"a", b""]
    assert [answers.name(6, b"\1\1\1\1", when) for when in (10 * S, 10 * S + LEAST_NS - 1, 10 * S + LEAST_NS)] == [b"b", b"b", b""]
    assert answers.name(5, SIX, 11 * S) == b"a"
    assert answers.name(5, socket.inet_aton("9.9.9.9"), 11 * S) == b""


def test_what_a_process_was_told_goes_before_what_others_were() -> None:
    answers = Answers()
    learn(answers, 1, 1 * S, answer(b"mine", FOUR))
    learn(answers, 2, 2 * S, answer(b"yours", FOUR))
    assert [answers.name(process, FOUR, 3 * S) for process in (1, 2, 3)] == [b"mine", b"yours", b"yours"]


def test_the_same_answer_again_makes_it_no_newer() -> None:
    answers = Answers()
    learn(answers, 1, 1 * S, answer(b"a", FOUR))
    learn(answers, 1, 9 * S, answer(b"a", FOUR))
    assert answers.name(1, FOUR, 2 * S) == b"a"
    assert answers.name(1, FOUR, 8 * S + LEAST_NS) == b"a"
    learn(answers, 1, 10 * S, answer(b"b", FOUR))
    assert [answers.name(1, FOUR, when * S) for when in (9, 10)] == [b"", b"b"]


def test_an_ipv4_address_inside_an_ipv6_one_is_the_same() -> None:
    answers = Answers()
    learn(answers, 1, 0, answer(b"a", FOUR))
    assert answers.name(1, bytes(10) + b"\xff\xff" + FOUR, 1) == b"a"


@pytest.mark.parametrize("text", [b"10.0.0.255", b"::", b"::1", b"2001:db8::1", b"::ffff:169.254.169.254", b"fe80:0:0:1::"])
def test_addresses_as_people_write_them(text: bytes) -> None:
    """The same whatever Python it is."""
    family = socket.AF_INET6 if b":" in text else socket.AF_INET
    assert address_text(socket.inet_pton(family, text.decode())) == text


def test_it_does_not_grow_for_ever() -> None:
    answers = Answers(most=10)
    for number in range(100):
        learn(answers, number, number, answer(b"n%d" % number, number.to_bytes(4, "big")))
    assert len(answers) == 10
    assert [answers.name(number, number.to_bytes(4, "big"), 200) for number in (94, 95, 99)] == [b"", b"n95", b"n99"]


def test_only_what_was_asked_is_learned() -> None:
    """Anybody who can send to a socket could have names for any address otherwise."""
    answers = Answers()
    told = answer(b"a", FOUR)
    answers.learn(1, 2 * S, told)
    answers.ask(1, 2 * S, replace(told, answer=False))
    for process_id, when_ns, message in (
        (2, 3 * S, told),
        (1, 3 * S, replace(told, id=2)),
        (1, 3 * S, answer(b"b", FOUR)),
        (1, S, told),
        (1, 2 * S + ASKED_NS, told),
    ):
        answers.learn(process_id, when_ns, message)
    assert len(answers) == 0
    answers.learn(1, 3 * S, told)
    assert answers.name(1, FOUR, 3 * S) == b"a"


def test_queries_are_not_remembered_for_ever() -> None:
    answers = Answers()
    for number in range(ASKED_MOST + 1):
        answers.ask(number, 0, answer(b"a", FOUR))
    for number in (0, 1):
        answers.learn(number, 0, answer(b"a", FOUR))
    assert [answers.name(number, FOUR, 0) for number in (0, 1)] == [b"a", b"a"], "the second of anybody's"
    assert len(answers) == 2
