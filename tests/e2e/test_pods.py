"""What happens in pods says so from its first event on: in such as the kubelet has made through the Container Runtime Interface, on a real
containerd, which is asked by its own API, and by that interface as cri-o is."""

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.containerd import IMAGE, Containerd
from tests.e2e.cri import Driver, Pod
from tests.e2e.system import Row, System
from tests.e2e.test_containers import TOLD_OF, known

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.serial,
    pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "cgroup2", "containerd", "busybox"),
]
IN_A_POD = 5
SOAK = pytest.param(500, 10, marks=[pytest.mark.soak, pytest.mark.timeout(900)])


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd(cri=True) as running:
        yield running


@pytest.fixture(scope="module", params=["containerd", "cri"])
def language(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def system(language: str, containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """That asks this containerd in that language."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", f"{language}:{containerd.socket}")
        with System(tmp_path_factory.mktemp("up")) as running:
            running.wait_for(TOLD_OF)
            yield running


def script(name: str) -> str:
    return f"/bin/true {name} first; /bin/sleep 0.05; exec /bin/true {name} last"


async def run_pods(socket: Path, run: str, containers: int, at_a_time: int) -> dict[str, tuple[Pod, str]]:
    """Containers in pods of a deployment, one after the other in each; by what their programs are called, their pod and id."""
    found: dict[str, tuple[Pod, str]] = {}
    running = asyncio.Semaphore(at_a_time)

    async def one_pod(driver: Driver, number: int) -> None:
        async with running, driver.pod(f"{run}-7c5d9f-{number:05}", {"app": run, "pod-template-hash": "7c5d9f"}) as pod:
            for place in range(IN_A_POD):
                name = f"{run}.{number}.{place}"
                found[name] = pod, await driver.create(pod, f"c{place}", script(name))
                await driver.start(found[name][1])
                await driver.ended(found[name][1])

    with Driver(socket) as driver:
        await asyncio.gather(*(one_pod(driver, number) for number in range(containers // IN_A_POD)))
    return found


COLUMNS = "argv[2] AS name, argv[3] AS part, container_id, container_name, pod_name, pod_namespace, pod_uid, workload, image, "
COLUMNS += "container_labels, identity"


def told(system: System, run: str, containers: int) -> list[Row]:
    """Both execs of each of their scripts."""
    return known(system, f"SELECT {COLUMNS} FROM execve WHERE startsWith(argv[2], '{run}.') AND argv[1] = '/bin/true'", 2 * containers)


def check(rows: list[Row], found: dict[str, tuple[Pod, str]], run: str) -> None:
    assert sorted((row["name"], row["part"]) for row in rows) == sorted((name, part) for name in found for part in ("first", "last"))
    for row in rows:
        pod, id = found[row["name"]]
        assert row["container_id"] == id
        assert (row["pod_name"], row["pod_namespace"], row["pod_uid"]) == (pod.name, "shop", pod.uid)
        assert (row["container_name"], row["image"], row["workload"]) == (f"c{row['name'].rpartition('.')[2]}", IMAGE, f"Deployment/{run}")
        assert {f"app={run}", f"io.kubernetes.container.name={row['container_name']}"} <= set(row["container_labels"])


@pytest.mark.parametrize(("containers", "at_a_time"), [(20, 4), SOAK])
def test_pods_from_their_first_event_on(system: System, containerd: Containerd, language: str, containers: int, at_a_time: int) -> None:
    """On all events, by now; and on some as soon as people see them, since the runtime is in time if the machine lets it."""
    run = f"infrasight-{uuid.uuid4().hex[:8]}"
    service, method = ("containerd.services.containers.v1.Containers", "Get")
    before = containerd.calls(service, method)
    with system.watched(kinds=["execve"]) as seen:
        found = asyncio.run(run_pods(containerd.socket, run, containers, at_a_time))
        check(told(system, run, containers), found, run)
        assert "complete" in {event.execve.identity for event in seen if event.execve and set(found) & set(event.execve.argv)}
    asked = containerd.calls(service, method) - before
    assert asked == (containers + containers // IN_A_POD if language == "containerd" else 0), "each container and each pod is asked about once"
    (times,) = system.query(
        "SELECT min(container_started - container_created) AS begun, max(ts - container_started) AS lived FROM execve "
        f"WHERE startsWith(argv[2], '{run}.')"
    )
    assert times["begun"] > 0
    assert 0 < times["lived"] < 30
    lost = system.query("SELECT * FROM loss WHERE probe IN ('execve', 'process')")
    assert lost == []


TIMES = 150


async def through_a_restart(containerd: Containerd, system: System, run: str) -> dict[str, tuple[Pod, str]]:
    """A container that goes on all the time, and one in a pod that is made as soon as containerd, which was killed, has been started again."""
    labels, found = {"app": run, "pod-template-hash": "7c5d9f"}, {}
    silences, again = system.said("containers are not told of") + 1, system.said(TOLD_OF) + 1
    for number in range(2):
        with Driver(containerd.socket) as driver:
            pod, name = await driver.run_pod(f"{run}-7c5d9f-{number:05}", labels), f"{run}.{number}.0"
            steps = f"i=0; while [ $i -lt {TIMES} ]; do /bin/true {name} $i; /bin/sleep 0.05; i=$((i+1)); done"
            found[name] = pod, await driver.create(pod, "c0", steps)
            await driver.start(found[name][1])
        if number == 0:
            containerd.kill()
            await asyncio.to_thread(system.wait_for, "containers are not told of", silences)
            containerd.start()
    await asyncio.to_thread(system.wait_for, TOLD_OF, again)
    with Driver(containerd.socket) as driver:
        for pod, id in found.values():
            await driver.ended(id)
            await driver.remove_pod(pod)
    return found


def test_a_runtime_that_is_killed_among_running_pods(system: System, containerd: Containerd) -> None:
    """What goes on in them is told of as before all the while; so is what comes later, once the runtime is listened to again. Nothing is lost."""
    run = f"infrasight-{uuid.uuid4().hex[:8]}"
    found = asyncio.run(through_a_restart(containerd, system, run))
    ours = f"execve WHERE startsWith(argv[2], '{run}.') AND argv[1] = '/bin/true'"
    rows = known(system, f"SELECT {COLUMNS} FROM {ours} ORDER BY toUInt32(argv[3])", 2 * TIMES)
    for name, (pod, id) in found.items():
        of_it = [row for row in rows if row["name"] == name]
        assert [int(row["part"]) for row in of_it] == list(range(TIMES))
        assert {row["container_id"] for row in of_it} == {id}
        assert {row["pod_uid"] for row in of_it} == {pod.uid}, "the path of a cgroup tells that, too"
        assert {(row["pod_name"], row["workload"], row["image"]) for row in of_it} == {(pod.name, f"Deployment/{run}", IMAGE)}
    assert system.query("SELECT * FROM loss WHERE probe IN ('execve', 'process')") == []
