"""Batches stored."""

from infrasight.schema.columns import Column, Kind, Type

BATCHES = Kind(
    "batches",
    101,
    "Batches of events that the server has stored: what came from whom, and how late. Written every 10 seconds; of a server that is killed the last "
    "of them are missing.",
    columns=(
        Column("ts", Type.TIME, 1, "When it was stored.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node that it is from."),
        Column("boot_id", Type.NAME, 3, "The boot of that node."),
        Column("epoch", Type.U64, 4, "The life of the node's process.", codec="ZSTD(1)"),
        Column("seq", Type.U64, 5, "Number of the batch in that life.", codec="Delta(8), ZSTD(1)"),
        Column("event_kind", Type.NAME, 6, "Kind of its events."),
        Column("rows", Type.U32, 7, "How many.", "events", "ZSTD(1)"),
        Column("bytes", Type.U32, 8, "What it was on the wire.", "bytes", "ZSTD(1)"),
        Column("oldest", Type.TIME, 9, "When its oldest event happened, as the node says.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("lag_ns", Type.I64, 10, "How long after that it was stored; negative where the clocks of node and server differ.", "ns", "ZSTD(1)"),
    ),
    origin="server",
)
