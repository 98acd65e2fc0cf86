"""Connections accepted, and sockets made ready for them."""

from dataclasses import replace

from infrasight.schema.columns import Column, Field, Kind, Type
from infrasight.schema.events.sockets import FAMILY, FD, LOCAL, PATH_FIELDS, PATH_SLOTS, PEER, PROTOCOL, unix_columns
from infrasight.schema.parts import CALL, UNIX_PATH_MAX, WHO

ACCEPT = Kind(
    "accept",
    30,
    "A connection was accepted, or failed to be (accept, accept4). `ret` is the file descriptor of the new socket, and both ends are as it has them.",
    columns=(
        *WHO,
        *CALL,
        replace(FAMILY, doc="Address family of the socket: inet, inet6, unix and so on, or its number."),
        PROTOCOL,
        replace(PEER[0], doc="Address that the connection came from; empty for unix sockets, and where the call failed."),
        replace(PEER[1], doc="Port that it came from."),
        replace(LOCAL[0], doc="Local address; where the call failed, the one listened on."),
        replace(LOCAL[1], doc="Local port."),
        *unix_columns("Path that a unix socket listens on, as it was bound; an abstract one begins with @.", "The file of it."),
        Column("peer_path", Type.TEXT, 29, "Path of the unix socket that connected, if it was bound to one.", codec="ZSTD(1)"),
        replace(FD, doc="File descriptor of the listening socket."),
        Column("flags", Type.U32, 30, "SOCK_* flags, for accept4.", codec="ZSTD(1)"),
    ),
    fields=(
        *PATH_FIELDS,
        Field("flags", "u32", "SOCK_* flags"),
        Field("peer_used", "u32", "bytes of `peer` that count"),
        Field("peer", f"u8[{UNIX_PATH_MAX}]", "address of the unix socket that connected"),
    ),
    slots=PATH_SLOTS,
    ring="net",
)
