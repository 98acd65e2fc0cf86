"""Sockets made, and put in place of standard input, output and error."""

from dataclasses import replace

from infrasight.schema.columns import Column, Field, Kind, Type
from infrasight.schema.events.sockets import FAMILIES, FAMILY, FD, LOCAL, PATH_FIELDS, PATH_SLOTS, PEER, PROTOCOL, TYPES, unix_columns
from infrasight.schema.parts import CALL, WHO

SOCKET = Kind(
    "socket",
    33,
    "A socket was made, or failed to be (socket). By default raw sockets, those of the domains packet, alg, vsock and key, and failures only.",
    columns=(
        *WHO,
        *CALL,
        Column("domain", Type.NAME, 20, "Domain (address family): inet, packet, alg and so on, or its number.", names=FAMILIES),
        Column("type", Type.NAME, 21, "Type: stream, dgram, raw and so on, or its number.", names=TYPES),
        Column(
            "protocol",
            Type.NAME,
            22,
            "Protocol: of inet and inet6 tcp, udp, icmp and so on, and where none was asked for that of the type; of packet all, ip, arp and so on; "
            "else its number.",
        ),
        Column("flags", Type.U32, 23, "SOCK_NONBLOCK and SOCK_CLOEXEC.", codec="ZSTD(1)"),
    ),
    fields=(
        Field("domain", "u32", "AF_*"),
        Field("type", "u32", "SOCK_*"),
        Field("protocol", "u32", "protocol"),
        Field("flags", "u32", "SOCK_NONBLOCK, SOCK_CLOEXEC"),
    ),
    ring="call",
    selective=True,
)

DUP = Kind(
    "dup",
    34,
    "A socket became standard input, output or error of a process, as for a shell that somebody uses from afar (dup, dup2, dup3, fcntl with F_DUPFD "
    "or F_DUPFD_CLOEXEC). Other descriptors are not told, nor is one that was made the same as itself. `ret` is the new descriptor: 0, 1 or 2.",
    columns=(
        *WHO,
        *CALL,
        replace(FAMILY, doc="Address family of the socket: inet, inet6, unix and so on, or its number."),
        PROTOCOL,
        *PEER,
        *LOCAL,
        *unix_columns("Path that a unix socket is bound to, else that of its peer; an abstract one begins with @.", "The file of it."),
        replace(FD, name="old_fd", doc="The descriptor that was duplicated."),
    ),
    fields=(*PATH_FIELDS, Field("unused", "u32", "")),
    slots=PATH_SLOTS,
    ring="net",
)
