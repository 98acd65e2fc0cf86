"""Nodes, as the server knows them."""

from infrasight.schema.columns import Column, Kind, Type

NODES = Kind(
    "nodes",
    102,
    "What the server knows of a node: a row when it connects, when it disconnects, and each minute that it is connected. Counts are of what has come "
    "since the last row, so that they can be summed up.",
    columns=(
        Column("ts", Type.TIME, 1, "When.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node."),
        Column("action", Type.NAME, 3, "Why there is this row: `connected`, `disconnected`, `minute`."),
        Column("version", Type.NAME, 4, "Version of the node."),
        Column("boot_id", Type.NAME, 5, "Its boot."),
        Column("epoch", Type.U64, 6, "The life of its process.", codec="ZSTD(1)"),
        Column("batches", Type.U64, 7, "Batches stored.", codec="ZSTD(1)"),
        Column("rows", Type.U64, 8, "Events stored.", "events", "ZSTD(1)"),
        Column("bytes", Type.U64, 9, "What they were on the wire.", "bytes", "ZSTD(1)"),
        Column("rejected_batches", Type.U64, 10, "Batches that never will be stored.", codec="ZSTD(1)"),
        Column("lost", Type.U64, 11, "Events that the node saw and did not keep: what came for the table `loss`.", "events", "ZSTD(1)"),
        Column("lag_ns", Type.I64, 12, "How old the oldest event of the last batch was when it came.", "ns", "ZSTD(1)"),
    ),
    origin="server",
)
