"""What could not be stored as what it was sent as."""

from infrasight.schema.columns import Column, Kind, Lane, Type

PAYLOAD_MAX = 1 << 20
"""Bytes of a payload that are kept."""

DEAD_LETTER = Kind(
    "dead_letter",
    105,
    "Batches that a node sent and that never can be stored: not decodable, not what their kind says, or refused by the store for good. A batch that "
    "came in pieces has a row for each.",
    columns=(
        Column("ts", Type.TIME, 1, "When the server gave it up.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node."),
        Column("epoch", Type.U64, 3, "The life of the node's process that it is from.", codec="ZSTD(1)"),
        Column("seq", Type.U64, 4, "Number of the batch within it.", codec="ZSTD(1)"),
        Column("event_kind", Type.NAME, 5, "The event kind that it was sent as."),
        Column("rows", Type.U64, 6, "How many events the node said are in it.", "events"),
        Column("reason", Type.NAME, 7, "Why it is here."),
        Column("length", Type.U64, 8, "Of the whole payload.", "bytes"),
        Column("payload", Type.TEXT, 9, f"The payload, an Arrow IPC stream or whatever it is: the first {PAYLOAD_MAX} bytes.", codec="ZSTD(3)"),
    ),
    origin="server",
    lane=Lane.SECURITY,
)
