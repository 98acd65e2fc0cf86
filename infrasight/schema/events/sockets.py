"""What the kinds about sockets have in common: the fields that their records begin with, and their columns."""

from infrasight.schema.columns import Column, Field, Slot, Source, Type
from infrasight.schema.parts import PATH_MAX, SOCKET, UNIX_PATH_MAX

FAMILIES = {
    0: "unspec",
    1: "unix",
    2: "inet",
    3: "ax25",
    4: "ipx",
    8: "x25",
    10: "inet6",
    15: "key",
    16: "netlink",
    17: "packet",
    21: "rds",
    23: "irda",
    24: "pppox",
    26: "llc",
    29: "can",
    30: "tipc",
    31: "bluetooth",
    38: "alg",
    40: "vsock",
    41: "kcm",
    42: "qipcrtr",
    43: "smc",
    44: "xdp",
    45: "mctp",
}
"""AF_*, include/linux/socket.h."""
TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 6: "dccp", 10: "packet"}
"""SOCK_*, include/linux/net.h."""

_PATH_ROOM = -(-UNIX_PATH_MAX // 8) * 8

FAMILY = Column("family", Type.NAME, 20, "Address family: inet, inet6, unix and so on, or its number.", names=FAMILIES)
PROTOCOL = Column("protocol", Type.NAME, 21, "tcp, udp, or the number; for unix sockets stream, dgram or seqpacket.")
FD = Column("fd", Type.I32, 27, "The socket's file descriptor.", codec="ZSTD(1)")
PEER = (
    Column("daddr", Type.NAME, 22, "Address of the other end; empty for what is neither inet nor inet6."),
    Column("dport", Type.U16, 23, "Port of the other end.", codec="ZSTD(1)"),
)
LOCAL = (
    Column("saddr", Type.NAME, 24, "Local address; 0.0.0.0 or :: where none was chosen."),
    Column("sport", Type.U16, 25, "Local port; 0 where none was chosen.", codec="ZSTD(1)"),
)

PATH_FIELDS = (*SOCKET, Field("path_whole", "u32", "whether `path_place` is the file itself"))
"""Of a kind that may be about unix sockets. A kind's own fields come after them."""
PATH_SLOTS = (
    Slot("path", _PATH_ROOM, _PATH_ROOM, "unix socket address", Source.OWN),
    Slot("path_place", 80, PATH_MAX, "its file, or the directory that it starts from", Source.PLACE),
)


def unix_columns(path: str, resolved: str) -> tuple[Column, Column]:
    """The address of a unix socket and its file, with what to say of each."""
    return (
        Column("path", Type.TEXT, 26, path, codec="ZSTD(1)"),
        Column("path_resolved", Type.TEXT, 28, resolved, codec="ZSTD(1)"),
    )
