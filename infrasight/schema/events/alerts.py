"""Alerts."""

from infrasight.schema.columns import Column, Kind, Type

ALERTS = Kind(
    "alerts",
    103,
    "What a rule found, or the model: one row each time that it is told, which stands for all events that it was grouped of.",
    columns=(
        Column("ts", Type.TIME, 1, "When the last of its events happened.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node; empty when it is of several."),
        Column("alert_id", Type.U64, 3, "The same for all rows of what goes on: a hash of rule and group.", codec="ZSTD(1)"),
        Column("raised", Type.TIME, 4, "When the server raised it.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("first", Type.TIME, 5, "When the first of its events happened.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("count", Type.U64, 6, "How many events it stands for.", "events", "ZSTD(1)"),
        Column("rule", Type.NAME, 7, "Id of the rule."),
        Column("title", Type.NAME, 8, "The rule's title."),
        Column("severity", Type.NAME, 9, "`low`, `medium`, `high` or `critical`."),
        Column("attack", Type.LINEAGE, 10, "Ids of the ATT&CK techniques that the rule is about."),
        Column("message", Type.TEXT, 11, "What happened, in words.", codec="ZSTD(1)"),
        Column("event_kind", Type.NAME, 12, "Kind of the event that matched last; `scores` for what the model found."),
        Column("event", Type.TEXT, 13, "That event, as JSON.", codec="ZSTD(1)"),
        Column("state", Type.NAME, 14, "`raised`, or `silenced` when somebody had asked not to be told."),
        Column("lost", Type.U64, 15, "Events lost on the node between `first` and `ts`: others may have matched.", "events", "ZSTD(1)"),
        Column("process_id", Type.U64, 20, "The process that did it, as in the event.", codec="ZSTD(1)"),
        Column("pid", Type.U32, 21, "Its process id, as the host sees it.", codec="ZSTD(1)"),
        Column("user", Type.NAME, 22, "Name of its user."),
        Column("comm", Type.NAME, 23, "Its name."),
        Column("exe", Type.NAME, 24, "The program that it ran."),
        Column("ancestors", Type.LINEAGE, 25, "Names of parent, grandparent and so on, nearest first."),
        Column("container_id", Type.NAME, 26, "Its container."),
        Column("container_name", Type.NAME, 27, "That container's name."),
        Column("image", Type.NAME, 28, "That container's image."),
        Column("pod_name", Type.NAME, 29, "Its pod."),
        Column("pod_namespace", Type.NAME, 30, "That pod's Kubernetes namespace."),
    ),
    origin="server",
)
