"""Sockets given an address of their own, and made to listen."""

from dataclasses import replace

from infrasight.schema.columns import Column, Field, Kind, Type
from infrasight.schema.events.sockets import FAMILY, FD, LOCAL, PATH_FIELDS, PATH_SLOTS, PROTOCOL, unix_columns
from infrasight.schema.parts import CALL, WHO

BIND = Kind(
    "bind",
    31,
    "A socket was bound to an address, or failed to be (bind).",
    columns=(
        *WHO,
        *CALL,
        replace(FAMILY, doc="Family of the address asked for: inet, inet6, unix and so on, or its number."),
        PROTOCOL,
        Column("addr", Type.NAME, 22, "Address asked for; empty for what is neither inet nor inet6."),
        Column("port", Type.U16, 23, "Port asked for; 0 asks for any."),
        replace(LOCAL[0], doc="Local address of the socket when the call returned; where it failed, the one from before."),
        replace(LOCAL[1], doc="Local port of the socket when the call returned: the one that was chosen, where 0 was asked for."),
        *unix_columns(
            "Path of a unix socket, as given; an abstract one begins with @. Where the kernel was left to choose a name, that.",
            "The file of the unix socket; of one that failed, from its path.",
        ),
        FD,
    ),
    fields=(*PATH_FIELDS, Field("unused", "u32", "")),
    slots=PATH_SLOTS,
    ring="net",
)

LISTEN = Kind(
    "listen",
    32,
    "A socket was made to listen for connections, or failed to be (listen).",
    columns=(
        *WHO,
        *CALL,
        replace(FAMILY, doc="Address family of the socket: inet, inet6, unix and so on, or its number."),
        PROTOCOL,
        replace(LOCAL[0], doc="Address listened on; 0.0.0.0 or :: for every one."),
        replace(LOCAL[1], doc="Port listened on; where the socket was not bound before, the one that was chosen."),
        *unix_columns("Path that a unix socket is bound to, as it was given to bind; an abstract one begins with @.", "The file of it."),
        FD,
        Column("backlog", Type.I32, 30, "How many connections may wait, as asked for.", codec="ZSTD(1)"),
    ),
    fields=(*PATH_FIELDS, Field("backlog", "s32", "how many connections may wait")),
    slots=PATH_SLOTS,
    ring="net",
)
