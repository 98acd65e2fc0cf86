"""Sockets connected."""

from infrasight.schema.columns import Column, Field, Kind, Slot, Type
from infrasight.schema.parts import CALL, UNIX_PATH_MAX, WHO

FAMILIES = {1: "unix", 2: "inet", 10: "inet6"}
"""AF_*, include/linux/socket.h."""

CONNECT = Kind(
    "connect",
    3,
    "A socket was connected, or failed to be (IPv4, IPv6 and unix; stream and datagram).",
    columns=(
        *WHO,
        *CALL,
        Column("family", Type.NAME, 20, "Address family: inet, inet6, unix, or its number.", names=FAMILIES),
        Column("protocol", Type.NAME, 21, "tcp, udp, or the number; for unix sockets stream, dgram or seqpacket."),
        Column("daddr", Type.NAME, 22, "Address connected to; empty for unix sockets."),
        Column("dport", Type.U16, 23, "Port connected to."),
        Column("saddr", Type.NAME, 24, "Local address; 0.0.0.0 or :: where the kernel had chosen none by the time the call returned."),
        Column("sport", Type.U16, 25, "Local port; 0 likewise.", codec="ZSTD(1)"),
        Column("path", Type.TEXT, 26, "Path of a unix socket; an abstract one begins with @.", codec="ZSTD(1)"),
        Column("fd", Type.I32, 27, "The socket's file descriptor.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("fd", "s32", "file descriptor"),
        Field("family", "u16", "AF_* of the address given"),
        Field("dport", "u16", "port, host byte order"),
        Field("sport", "u16", "local port, host byte order"),
        Field("socket_type", "u16", "SOCK_*"),
        Field("socket_protocol", "u16", "IPPROTO_*"),
        Field("socket_family", "u16", "AF_* of the socket"),
        Field("daddr", "u8[16]", "address, network byte order"),
        Field("saddr", "u8[16]", "local address, network byte order"),
    ),
    slots=(Slot("path", UNIX_PATH_MAX, UNIX_PATH_MAX, "unix socket address"),),
)
