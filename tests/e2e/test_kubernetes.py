"""What the API server of Kubernetes says of a pod is on its events: real pods, made through the Container Runtime Interface on a real containerd, and
an API server made by hand that knows more of them."""

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from tests.e2e.containerd import IMAGE, Containerd
from tests.e2e.cri import NAMESPACE, Driver
from tests.e2e.system import System
from tests.runtimes.fake_kubernetes import FakeKubernetes, Pods, owner, served

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.serial,
    pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "cgroup2", "containerd", "busybox"),
]
NODE = "node-1"


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd(cri=True) as running:
        yield running


@pytest.fixture(scope="module")
def api() -> FakeKubernetes:
    return FakeKubernetes()


@pytest.fixture(scope="module")
def url(api: FakeKubernetes) -> Iterator[str]:
    with served(api) as there:
        yield there


@pytest.fixture(scope="module")
def system(containerd: Containerd, url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", f"containerd:{containerd.socket}")
        patch.setenv("INFRASIGHT_KUBERNETES_API", url)
        patch.setenv("NODE_NAME", NODE)
        with System(tmp_path_factory.mktemp("up")) as running:
            running.wait_for("containers are told of by")
            running.wait_for(f"pods are told of by {url}")
            yield running


def test_what_it_says_of_a_pod_is_on_events(containerd: Containerd, system: System, api: FakeKubernetes, url: str) -> None:
    """Whose it is, from its first event on, though no label tells; and its labels as they are by now: in a container that runs all the while, and in
    one that is begun later, of which the runtime says what was so when the pod was made."""
    run = f"infrasight-{uuid.uuid4().hex[:8]}"

    async def one_pod() -> str:
        async with Pods(url, NAMESPACE) as pods:
            uid = await pods.create(run, NODE, {"app": run, "tier": "old"}, [owner("Rollout", "shop")])
            with Driver(containerd.socket) as driver:
                pod = await driver.run_pod(run, {"app": run, "tier": "old"}, uid=uid)
                runs = f"i=0; while [ $i -lt 1000 ]; do /bin/true {run} all-the-while; /bin/sleep 0.05; i=$((i+1)); done"
                ids = [await driver.create(pod, name, script) for name, script in (("c0", runs), ("c1", f"/bin/true {run} later"))]
                await driver.start(ids[0])
                await asyncio.to_thread(system.wait_until_more, f"SELECT count() FROM execve WHERE argv[2] = '{run}'", 2)
                await pods.label(run, {"tier": "new"})
                learned = f"container WHERE container_id = '{ids[1]}' AND state = 'learned' AND has(container_labels, 'tier=new')"
                assert await asyncio.to_thread(system.wait_for_count, f"SELECT count() FROM {learned}", 1) == 1
                await driver.start(ids[1])
                await driver.ended(ids[1])
                later = f"execve WHERE argv[2] = '{run}' AND argv[3] = 'later'"
                assert await asyncio.to_thread(system.wait_for_count, f"SELECT count() FROM {later}", 1) == 1
                now = f"execve WHERE argv[2] = '{run}' AND argv[3] = 'all-the-while' AND has(container_labels, 'tier=new')"
                await asyncio.to_thread(system.wait_until_more, f"SELECT count() FROM {now}", 3)
                await driver.remove_pod(pod)
            return uid

    uid = asyncio.run(one_pod())
    what = "pod_name, pod_namespace, pod_uid, workload, image, identity"
    (who,) = system.rows_once(f"SELECT DISTINCT {what} FROM execve WHERE argv[2] = '{run}'", lambda rows: len(rows) == 1)
    assert who == {
        "pod_name": run,
        "pod_namespace": NAMESPACE,
        "pod_uid": uid,
        "workload": "Rollout/shop",
        "image": IMAGE,
        "identity": "complete",
    }
    tiers = "arrayFilter(label -> startsWith(label, 'tier='), container_labels)"
    said = system.query(f"SELECT argv[3] AS part, groupUniqArray({tiers}) AS tiers FROM execve WHERE argv[2] = '{run}' GROUP BY part ORDER BY part")
    assert [(row["part"], sorted(row["tiers"])) for row in said] == [("all-the-while", [["tier=new"], ["tier=old"]]), ("later", [["tier=new"]])]
    mine = f"has(container_labels, 'app={run}') AND has(container_labels, 'io.kubernetes.pod.name={run}')"
    assert system.count(f"SELECT countIf(NOT ({mine})) FROM execve WHERE argv[2] = '{run}'") == 0
    assert {query["fieldSelector"] for query in api.asked} == {f"spec.nodeName={NODE}"}
    assert len(api.asked) == 2, "a list and a watch"
