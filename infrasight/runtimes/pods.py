"""What Kubernetes says of a pod, through its runtime in the labels and annotations that the kubelet and controllers set, or by its API. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SANDBOX_NAME = "POD"
"""What Kubernetes calls the container that stands for a pod."""
_NAME, _NAMESPACE, _UID = "io.kubernetes.pod.name", "io.kubernetes.pod.namespace", "io.kubernetes.pod.uid"
"""Labels that the kubelet has every pod and container made with (kubernetes/pkg/kubelet/types/labels.go)."""
_KEPT = ("io.kubernetes.", "io.cri-containerd.")
"""How labels begin that the kubelet and the runtime have a pod made with, of which the API server does not know."""
_SOURCE = "kubernetes.io/config.source"
"""Annotation of the kubelet's: where it has the pod from; `api`, or a file or an address, which makes it a static one."""
_JOB = ("batch.kubernetes.io/job-name", "job-name")
_STATEFUL, _REVISION, _TEMPLATE = "statefulset.kubernetes.io/pod-name", "controller-revision-hash", "pod-template-hash"
"""Labels that controllers set: of stateful sets; of those and daemon sets; of deployments."""
_RANDOM, _GENERATED_MAX = 5, 58
"""Characters that are put behind an owner's name to make that of a pod, and how much of it is kept (apiserver/pkg/storage/names/generate.go)."""
_SCHEDULED = re.compile(r"(.+)-(\d{8})")
"""What a CronJob calls a job: its own name and the minute since the epoch (kubernetes/pkg/controller/cronjob/utils.go)."""
_MINUTE_NS = 60 * 10**9
_LATE_MINUTES = 366 * 24 * 60
"""How long after the time that it was meant for a job can have been begun, to be told from one that somebody named by a date."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; empty where it is not said."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    workload: str = ""
    """Kind and name of what owns it."""


NO_POD = Pod()


def pod_of(
    labels: Mapping[str, str],
    annotations: Mapping[str, str] | None = None,
    *,
    name: str = "",
    namespace: str = "",
    uid: str = "",
    node: str = "",
    created_ns: int = 0,
) -> Pod:
    """The pod with these labels and annotations, on this node; what is not given of the rest is taken from labels. Created at ns since the epoch."""
    name = name or labels.get(_NAME, "")
    owner = workload(name, labels, annotations or {}, node, created_ns) if name else ""
    return Pod(name, namespace or labels.get(_NAMESPACE, ""), uid or labels.get(_UID, ""), labels, owner)


def workload(pod: str, labels: Mapping[str, str], annotations: Mapping[str, str], node: str, created_ns: int) -> str:
    """Kind and name of what owns a pod, `Deployment/web`; empty when no controller set a label that tells."""
    if annotations.get(_SOURCE, "api") != "api":
        return f"Node/{node}"
    if job := next((labels[label] for label in _JOB if labels.get(label)), ""):
        return _of_job(job, created_ns)
    if labels.get(_STATEFUL):
        return f"StatefulSet/{pod.rpartition('-')[0]}"
    owner = pod[:-_RANDOM].removesuffix("-")
    if template := labels.get(_TEMPLATE):
        return _of_template(owner, f"-{template}")
    return f"DaemonSet/{owner}" if labels.get(_REVISION) else ""


def owned_by(kind: str, name: str, labels: Mapping[str, str], created_ns: int) -> str:
    """Kind and name of what owns a pod with these labels that is controlled by this, as it says itself; of what in turn owns that, its name tells."""
    ending = f"-{labels.get(_TEMPLATE, '')}"
    if kind == "ReplicaSet" and ending != "-" and name.endswith(ending):
        return f"Deployment/{name.removesuffix(ending)}"
    return _of_job(name, created_ns) if kind == "Job" else f"{kind}/{name}"


def kept(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a pod's labels that are not its own, but the kubelet's and the runtime's."""
    return {name: value for name, value in labels.items() if name.startswith(_KEPT)}


def _of_job(job: str, created_ns: int) -> str:
    scheduled = _SCHEDULED.fullmatch(job)
    late = created_ns // _MINUTE_NS - int(scheduled[2]) if scheduled else -1
    return f"CronJob/{scheduled[1]}" if scheduled and 0 <= late < _LATE_MINUTES else f"Job/{job}"


def _of_template(owner: str, ending: str) -> str:
    """That of a replica set with the hash in its name is a deployment; of a long name the end was cut off."""
    if len(owner) < _GENERATED_MAX - 1:
        return f"Deployment/{owner.removesuffix(ending)}" if owner.endswith(ending) else f"ReplicaSet/{owner}"
    cut = next(length for length in range(len(ending), -1, -1) if owner.endswith(ending[:length]))
    return f"Deployment/{owner[: len(owner) - cut]}"
