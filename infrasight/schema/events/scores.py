"""Scores of the anomaly model."""

from infrasight.schema.columns import Column, Kind, Type

SCORES = Kind(
    "scores",
    104,
    "How unusual the model found what a workload did in a window: one row for each window and workload that it scored.",
    columns=(
        Column("ts", Type.TIME, 1, "End of the window.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("node", Type.NAME, 2, "Name of the node."),
        Column("since", Type.TIME, 3, "Start of the window.", "ns since the epoch, UTC", "Delta(8), ZSTD(1)"),
        Column("model", Type.NAME, 4, "The model, and its version."),
        Column("score", Type.F64, 5, "Its error when it rebuilds what the workload did: the larger, the less it has seen the like.", codec="ZSTD(1)"),
        Column("threshold", Type.F64, 6, "From which score on it is anomalous.", codec="ZSTD(1)"),
        Column("anomalous", Type.BOOL, 7, "Whether the score is at or above the threshold."),
        Column("reasons", Type.WORDS, 8, "The features that contributed most, name=value each, the largest first.", codec="ZSTD(1)"),
        Column("processes", Type.U32, 9, "Processes that were in the window.", codec="ZSTD(1)"),
        Column("lost", Type.U64, 10, "Events lost on the node in the window.", "events", "ZSTD(1)"),
        Column("comm", Type.NAME, 20, "Name of the processes, where a workload is a program; empty where it is a container."),
        Column("container_id", Type.NAME, 21, "The container; empty outside of one."),
        Column("container_name", Type.NAME, 22, "That container's name."),
        Column("image", Type.NAME, 23, "That container's image."),
        Column("pod_name", Type.NAME, 24, "Its pod."),
        Column("pod_namespace", Type.NAME, 25, "That pod's Kubernetes namespace."),
    ),
    origin="server",
)
