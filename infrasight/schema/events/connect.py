"""Sockets connected."""

from dataclasses import replace

from infrasight.schema.columns import Column, Field, Kind, Type
from infrasight.schema.events.sockets import FAMILY, FD, LOCAL, PATH_FIELDS, PATH_SLOTS, PEER, PROTOCOL, unix_columns
from infrasight.schema.parts import CALL, WHO

CONNECT = Kind(
    "connect",
    3,
    "A socket was connected, or failed to be (IPv4, IPv6 and unix; stream and datagram).",
    columns=(
        *WHO,
        *CALL,
        FAMILY,
        PROTOCOL,
        replace(PEER[0], doc="Address connected to; empty for unix sockets."),
        replace(PEER[1], doc="Port connected to."),
        *LOCAL,
        *unix_columns(
            "Path of a unix socket, as given; an abstract one begins with @.",
            "The file of the unix socket connected to; of one that failed, from its path.",
        ),
        FD,
        Column(
            "name",
            Type.NAME,
            31,
            "The name that led to `daddr`: the last one for which a name server that was asked gave it, to this process or, if to none, to another. "
            "From `dns`, and so only where that is traced; remembered for a minute longer than it holds, and ten minutes at least. If there is none, "
            "the name that a name server gives for the address when asked: known a moment after the first connect, not asked for private addresses.",
        ),
        Column(
            "name_source",
            Type.NAME,
            32,
            "Where `name` is from: `dns` (it was asked for, and led to the address), `reverse` (whoever has the address calls it so), or empty.",
        ),
    ),
    fields=(*PATH_FIELDS, Field("unused", "u32", "")),
    slots=PATH_SLOTS,
    ring="net",
)
