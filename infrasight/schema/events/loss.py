"""What was seen but not kept."""

from infrasight.schema.columns import Column, Kind, Lane, Type

LOSS = Kind(
    "loss",
    5,
    "Events that were seen but not kept: how many, of which probe, why, and when. Any query can say whether its window was complete.",
    columns=(
        Column("ts", Type.TIME, 1, "End of the time in which they were lost.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node."),
        Column("since", Type.TIME, 3, "Start of the time in which they were lost.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("probe", Type.NAME, 4, "The probe, which is the event kind's name."),
        Column("reason", Type.NAME, 5, "Why: see the reasons for loss in docs/EVENTS.md."),
        Column("count", Type.U64, 6, "How many.", "events"),
    ),
    origin="node",
    lane=Lane.SECURITY,
)
