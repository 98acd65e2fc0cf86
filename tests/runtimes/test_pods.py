"""What owns a pod, by what controllers put into its labels and annotations."""

import pytest

from infrasight.runtimes.pods import Pod, pod_of

CREATED_NS = 1_764_000_000 * 10**9
MINUTE = CREATED_NS // (60 * 10**9)
LONG = "d" * 60
SCHEDULED = f"report-{MINUTE - 3}"


def owner(pod: str, annotations: dict[str, str] | None = None, **labels: str) -> str:
    """Labels with two underscores for each slash, and one for each hyphen, in their names."""
    named = {name.replace("__", "/").replace("_", "-"): value for name, value in labels.items()}
    return pod_of(named, annotations, name=pod, node="node-1", created_ns=CREATED_NS).workload


@pytest.mark.parametrize(
    ("pod", "labels", "workload"),
    [
        ("web-7c5d9f-x2b4z", {"pod_template_hash": "7c5d9f"}, "Deployment/web"),
        ("a-b-c-7c5d9f-x2b4z", {"pod_template_hash": "7c5d9f"}, "Deployment/a-b-c"),
        # a replica set that somebody made with such a label
        ("web-x2b4z", {"pod_template_hash": "7c5d9f"}, "ReplicaSet/web"),
        # of a long name the end is cut off, with some of the hash, or all of it
        (f"{LONG[:50]}-7c5d9f6x2b4z", {"pod_template_hash": "7c5d9f6b8c"}, f"Deployment/{LONG[:50]}"),
        (f"{LONG[:57]}-x2b4z", {"pod_template_hash": "7c5d9f6b8c"}, f"Deployment/{LONG[:57]}"),
        (f"{LONG[:58]}x2b4z", {"pod_template_hash": "7c5d9f6b8c"}, f"Deployment/{LONG[:58]}"),
        ("logs-x2b4z", {"controller_revision_hash": "5d9f7c"}, "DaemonSet/logs"),
        ("my-db-11", {"statefulset.kubernetes.io__pod_name": "my-db-11", "controller_revision_hash": "my-db-5d9f7c"}, "StatefulSet/my-db"),
        ("sum-x2b4z", {"batch.kubernetes.io__job_name": "sum", "job_name": "sum"}, "Job/sum"),
        ("sum-x2b4z", {"job_name": "sum"}, "Job/sum"),
        (f"{SCHEDULED}-x2b4z", {"job_name": SCHEDULED}, "CronJob/report"),
        # named by a date, by something later, by no number
        ("report-20240101-x2b4z", {"job_name": "report-20240101"}, "Job/report-20240101"),
        (f"report-{MINUTE + 5}-x2b4z", {"job_name": f"report-{MINUTE + 5}"}, f"Job/report-{MINUTE + 5}"),
        (f"{MINUTE}-x2b4z", {"job_name": f"{MINUTE}"}, f"Job/{MINUTE}"),
        ("alone", {}, ""),
        ("alone", {"job_name": "", "pod_template_hash": "", "app": "web"}, ""),
        ("", {"pod_template_hash": "7c5d9f"}, ""),
    ],
)
def test_by_labels(pod: str, labels: dict[str, str], workload: str) -> None:
    assert owner(pod, **labels) == workload


@pytest.mark.parametrize(("source", "workload"), [("file", "Node/node-1"), ("http", "Node/node-1"), ("api", "Deployment/web")])
def test_a_static_pod_is_its_nodes(source: str, workload: str) -> None:
    assert owner("web-7c5d9f-x2b4z", {"kubernetes.io/config.source": source}, pod_template_hash="7c5d9f") == workload


def test_what_is_said_otherwise_is_taken_from_labels() -> None:
    labels = {"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u", "job-name": "web"}
    assert pod_of(labels) == Pod("web-1", "shop", "u", labels, "Job/web")
    assert pod_of(labels, name="a", namespace="b", uid="c") == Pod("a", "b", "c", labels, "Job/web")
    assert pod_of({}) == Pod()
