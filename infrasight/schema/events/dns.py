"""Names asked for, and what the answers were."""

from dataclasses import replace

from infrasight.schema.columns import Column, Field, Kind, Slot, Source, Type
from infrasight.schema.events.sockets import FD, LOCAL, PEER
from infrasight.schema.parts import CALL, SOCKET, WHO

QUERY, ANSWER = 1, 2
"""`action` of a record (bpf/dns.c)."""
MESSAGE_MAX = 512
"""Bytes of a message that are looked at: as many as one had before there were extensions."""

DNS = Kind(
    "dns",
    35,
    "A name server was asked something over UDP port 53, or answered (sendto, sendmsg, sendmmsg, recvfrom, recvmsg, recvmmsg; since Linux 6.3 also "
    "write, writev, read and readv on a connected socket, as of programs in Go: of these `ts` is when the call ended, and `latency_ns` means "
    "nothing). Not seen are TCP, TLS and HTTPS; a message with more than one question, or whose question is not in the first of its parts; and what "
    "comes after the eighth message of one call.",
    columns=(
        *WHO,
        *CALL,
        Column("action", Type.NAME, 20, "query or answer.", names={QUERY: "query", ANSWER: "answer"}),
        Column(
            "name",
            Type.TEXT,
            21,
            "The name asked for, in lower case, without a dot at its end. A byte that is no printable ASCII is written as a backslash and three "
            "digits, and a dot or backslash inside a label with a backslash before it. Empty for a message that makes no sense; the root is a dot.",
            codec="ZSTD(1)",
        ),
        Column("qtype", Type.NAME, 28, "What was asked for: A, AAAA, MX and so on, or its number."),
        Column("id", Type.U16, 29, "Number of the query, which its answer has too.", codec="ZSTD(1)"),
        Column("rcode", Type.NAME, 30, "How it went: NOERROR, NXDOMAIN, SERVFAIL and so on, or its number; empty for a query."),
        Column(
            "addresses",
            Type.WORDS,
            31,
            f"The IPv4 and IPv6 addresses that an answer gave the name, by itself or by way of its aliases, within the first {MESSAGE_MAX} bytes.",
            codec="ZSTD(1)",
        ),
        replace(PEER[0], doc="Address of the name server."),
        replace(PEER[1], doc="Its port: 53."),
        *LOCAL,
        FD,
        Column("bytes", Type.U32, 32, "Length of the message.", "bytes", "ZSTD(1)"),
    ),
    fields=(
        *SOCKET,
        Field("action", "u32", "1 query, 2 answer"),
        Field("bytes", "u32", "length of the message"),
    ),
    slots=(Slot("message", MESSAGE_MAX, MESSAGE_MAX, "the message", Source.OWN),),
    ring="dns",
)
