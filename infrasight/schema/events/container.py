"""What the node was told of containers."""

from dataclasses import replace

from infrasight.schema.columns import Column, Kind, Type
from infrasight.schema.parts import TOLD, WHO

_WHO = {column.name: column for column in WHO}

LEARNED, ENDED = b"learned", b"ended"
"""`state` of a row."""

CONTAINER = Kind(
    "container",
    60,
    "What a container is, as its runtime says: one row when the node learns of it, one when it has become another, and one when it ends. Those that "
    "there are when a node starts are told of again.",
    columns=(
        replace(_WHO["ts"], doc="When the node was told."),
        replace(_WHO["node"], doc="Name of the node that it is on."),
        replace(_WHO["container_id"], doc="Its id, or name where there is no other."),
        replace(_WHO["container_runtime"], doc="What runs it: docker, containerd, podman and so on; empty when that is not known."),
        replace(_WHO["pod_uid"], doc="Uid of its Kubernetes pod; empty outside of one."),
        replace(_WHO["container_started"], doc="When it was started, as its runtime says; 1970 when that is not known."),
        *(_WHO[name] for name in TOLD),
        Column("state", Type.NAME, 20, "learned (this is what it is from now on) or ended."),
    ),
    origin="node",
)
