"""What happens in a container says so from its first event on, however short it lives: in containers of containerd's, and in cgroups made by hand."""

import json
import os
import subprocess
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infrasight.cli.main import main
from tests.e2e.cgroups import cgroup, remove_empty
from tests.e2e.containerd import IMAGE, NAMESPACE, Containerd
from tests.e2e.podman import Podman
from tests.e2e.system import Row, System

pytestmark = [pytest.mark.kernel, pytest.mark.serial, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc", "cgroup2")]
CONTAINERS, AT_A_TIME = 24, 4
SOAK = pytest.param(500, 10, marks=pytest.mark.soak)
POD = "0ca3b0a6-7e8f-4b59-9d0b-1f6e2a3c4d5e"
WHERE = "container_id, container_runtime, pod_uid"
TOLD_OF = "containers are told of by"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """That asks nobody what containers are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", "none")
        with System(tmp_path_factory.mktemp("up")) as running:
            yield running


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd() as running:
        yield running


@pytest.fixture(scope="module")
def asking(containerd: Containerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """That asks this containerd."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INFRASIGHT_RUNTIMES", f"containerd:{containerd.socket}")
        with System(tmp_path_factory.mktemp("up")) as running:
            running.wait_for(TOLD_OF)
            yield running


LEAST = 4 + 2 + 5
"""Events of a shell that opens a file and becomes /bin/true: its life, its execs, and what both open."""


def of_process(system: System, pids: list[int]) -> dict[int, list[Row]]:
    """Everything that is stored of processes of which each was such a shell, in the order of time."""
    said = f"pid IN ({', '.join(map(str, pids))})"
    kinds = ("execve", "open", "process")
    sql = " UNION ALL ".join(f"SELECT ts, pid, cgroup_id, {WHERE}, '{kind}' AS kind FROM {kind} WHERE {said}" for kind in kinds)
    ended = f"SELECT count() FROM process WHERE {said} AND action = 'exit'"
    assert system.wait_for_count(ended, len(pids)) == len(pids)
    rows = system.rows_once(f"SELECT * FROM ({sql}) ORDER BY ts", lambda rows: all(Counter(row["pid"] for row in rows)[pid] >= LEAST for pid in pids))
    return {pid: [row for row in rows if row["pid"] == pid] for pid in pids}


@pytest.mark.needs("containerd", "busybox")
def test_containers_that_live_50_ms(system: System, containerd: Containerd) -> None:
    """Every exec in each of them, and what its first process did before it became the program: all that was done in its cgroup."""
    names = [f"infrasight-{uuid.uuid4().hex[:8]}.{number}" for number in range(CONTAINERS)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda name: containerd.run(name, script(name)), names))
    ours = f"argv[1] = '/bin/true' AND argv[2] IN ({', '.join(map(repr, names))})"
    assert system.wait_for_count(f"SELECT count() FROM execve WHERE {ours}", 2 * CONTAINERS) == 2 * CONTAINERS
    rows = system.query(f"SELECT argv[2] AS name, argv[3] AS part, cgroup_id, {WHERE} FROM execve WHERE {ours}")
    assert sorted((row["name"], row["part"]) for row in rows) == sorted((name, part) for name in names for part in ("first", "last"))
    assert [(row["container_id"], row["container_runtime"], row["pod_uid"]) for row in rows] == [(row["name"], "containerd", "") for row in rows]
    cgroups = {row["cgroup_id"]: row["name"] for row in rows}
    assert len(cgroups) == CONTAINERS
    for kind in ("execve", "open", "process", "mount"):
        table = f"{kind} WHERE cgroup_id IN ({', '.join(map(str, cgroups))})"
        assert system.wait_for_count(f"SELECT uniqExact(cgroup_id) FROM {table}", CONTAINERS) == CONTAINERS
        inside = system.query(f"SELECT cgroup_id, container_id FROM {table}")
        assert [row["container_id"] for row in inside] == [cgroups[row["cgroup_id"]] for row in inside]
    others = system.query("SELECT DISTINCT container_id FROM execve WHERE comm IN ('ctr', 'containerd', 'containerd-shim')")
    assert [row["container_id"] for row in others] in ([], [""])


@pytest.mark.needs("containerd", "busybox")
def test_a_pod_by_its_cgroup(system: System, containerd: Containerd, capsys: pytest.CaptureFixture[str]) -> None:
    """And events of one container only, by the beginning of its id."""
    id, name = uuid.uuid4().hex * 2, f"infrasight-{uuid.uuid4().hex[:8]}"
    path = f"/kubepods/burstable/pod{POD}/{id}"
    try:
        containerd.run(name, f"exec /bin/true {name}", "--cgroup", path)
    finally:
        remove_empty(f"/kubepods/burstable/pod{POD}")
    assert system.wait_for_count(f"SELECT count() FROM execve WHERE argv[2] = '{name}'", 1) == 1
    (row,) = system.query(f"SELECT {WHERE} FROM execve WHERE argv[2] = '{name}'")
    assert row == {"container_id": id, "container_runtime": "", "pod_uid": POD}
    assert main(["events", "--container", id[:12], "-o", "json", "--last", "1000", "--server-port", str(system.port)]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["container_id"] for event in events} == {id}
    assert [event["argv"] for event in events if event["kind"] == "execve" and not event["ret"]][-1] == ["/bin/true", name]


def script(name: str) -> str:
    return f"/bin/true {name} first; /bin/sleep 0.05; exec /bin/true {name} last"


def known(system: System, sql: str, count: int, identity: str = "complete") -> list[Row]:
    """So many rows of a statement that has `identity`, once that is so of all. Those of which a busy machine's node is told late are healed."""
    rows = system.rows_once(sql, lambda rows: [row["identity"] for row in rows] == [identity] * count)
    assert Counter(row["identity"] for row in rows) == {identity: count}
    return rows


def told(system: System, name: str, identity: str = "complete") -> list[Row]:
    """Both execs of that script, and what is known of where they were."""
    columns = "container_id, container_name, image, image_digest, container_labels, privileged, container_runtime, identity"
    return known(system, f"SELECT {columns} FROM execve WHERE argv[2] = '{name}' AND argv[1] = '/bin/true'", 2, identity)


@pytest.mark.needs("containerd", "busybox")
@pytest.mark.parametrize(("count", "at_a_time"), [(CONTAINERS, AT_A_TIME), SOAK])
def test_what_its_runtime_says_is_there_from_the_first_event_on(
    asking: System, containerd: Containerd, count: int, at_a_time: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """On all events, by now; and on some as soon as people see them, since its runtime is in time if the machine lets it."""
    names = [f"infrasight-{uuid.uuid4().hex[:8]}.{number}" for number in range(count)]
    with asking.watched(kinds=["execve"]) as seen:
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(lambda name: containerd.run(name, script(name), "--label", f"called={name}"), names))
        listed = ", ".join(map(repr, names))
        sql = f"SELECT argv[2] AS name, * FROM execve WHERE argv[1] = '/bin/true' AND name IN ({listed}) ORDER BY ts"
        rows = known(asking, sql, 2 * count)
        assert "complete" in {event.execve.identity for event in seen if event.execve and set(names) & set(event.execve.argv)}
    assert sorted(row["name"] for row in rows) == sorted([*names, *names])
    for row in rows:
        assert (row["container_id"], row["container_name"], row["identity"]) == (row["name"], row["name"], "complete")
        assert (row["image"], row["image_digest"], row["privileged"]) == (IMAGE, containerd.digest, False)
        assert f"called={row['name']}" in row["container_labels"]
    every = f"SELECT identity, uniqExact(container_id) AS n FROM open WHERE container_id IN ({listed}) GROUP BY identity"
    opened = asking.rows_once(every, lambda rows: [(row["identity"], int(row["n"])) for row in rows] == [("complete", count)])
    assert [(row["identity"], int(row["n"])) for row in opened] == [("complete", count)]
    wrong = "NOT (container_started >= container_created AND ts >= container_started)"
    # Of what the runtime itself becomes there the call was begun before it was moved into the cgroup.
    where = f"container_id IN ({listed}) AND argv[1] = '/bin/true' AND {wrong}"
    assert asking.query(f"SELECT ts, container_created, container_started, argv FROM execve WHERE {where}") == []
    port = str(asking.port)
    assert main(["events", "--image", "infrasight-test", "--type", "execve", "-o", "json", "--last", "9", "--server-port", port]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [event["image"] for event in events] == [IMAGE] * 9


@pytest.mark.needs("containerd", "busybox")
def test_a_pod_by_its_labels(asking: System, containerd: Containerd, capsys: pytest.CaptureFixture[str]) -> None:
    """As the kubelet has every container made; and its events alone, of those that its shell began."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    labels = {"io.kubernetes.pod.name": f"{name}-pod", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.container.name": "till"}
    containerd.run(name, script(name), *(word for label in labels.items() for word in ("--label", "=".join(label))))
    assert {row["container_name"] for row in told(asking, name)} == {"till"}
    expected = [{"pod_name": f"{name}-pod", "pod_namespace": "shop"}]
    pods = f"SELECT DISTINCT pod_name, pod_namespace FROM open WHERE container_id = '{name}'"
    assert asking.rows_once(pods, lambda rows: rows == expected) == expected
    every = f"SELECT DISTINCT pod_name FROM execve WHERE container_id = '{name}'"
    assert asking.rows_once(every, lambda rows: len(rows) == 1) == [{"pod_name": f"{name}-pod"}]
    wanted = ["--pod", name, "--type", "execve", "-o", "json", "--server-port", str(asking.port)]
    assert main(["events", *wanted, "--ancestor", "sh"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all("sh" in event["ancestors"] for event in events)
    # A shell may have started the tests, and so all of this.
    begun = [event["argv"][:3] for event in events if event["ancestors"][0] == "sh"]
    assert begun == [["/bin/true", name, "first"], ["/bin/sleep", "0.05"]]
    assert main(["events", *wanted, "--ancestor", "nobody's name"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.needs("containerd", "busybox")
def test_a_namespace_of_ones_own(asking: System, containerd: Containerd) -> None:
    """The path of its cgroups tells nothing; containerd does."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    try:
        containerd.run(name, script(name), namespace=NAMESPACE)
    finally:
        remove_empty(f"/{NAMESPACE}")
    assert {(row["container_id"], row["image"], row["identity"]) for row in told(asking, name)} == {(name, IMAGE, "complete")}


@pytest.mark.needs("containerd", "busybox")
def test_one_name_in_two_namespaces(asking: System, containerd: Containerd) -> None:
    """At the same time; each has what its own is told of."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"

    def run(namespace: str) -> None:
        said = f"for i in 1 2 3 4 5 6 7 8 9; do /bin/true {name} {namespace}; /bin/sleep 0.05; done"
        containerd.run(name, said, "--label", f"in={namespace}", namespace=namespace)

    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, ("default", NAMESPACE)))
    finally:
        remove_empty(f"/{NAMESPACE}")
    ours = f"execve WHERE argv[2] = '{name}' AND argv[1] = '/bin/true'"
    rows = known(asking, f"SELECT argv[3] AS namespace, container_id, container_labels, identity FROM {ours}", 18)
    assert all(row["container_id"] == name and f"in={row['namespace']}" in row["container_labels"] for row in rows)


@pytest.mark.needs("containerd", "busybox")
def test_a_privileged_container(asking: System, containerd: Containerd) -> None:
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    containerd.run(name, script(name), "--privileged")
    assert {row["privileged"] for row in told(asking, name)} == {True}


@pytest.mark.needs("containerd", "busybox")
def test_a_runtime_that_ends_and_is_started_again(asking: System, containerd: Containerd) -> None:
    """Nothing is lost; afterwards it is as before."""
    names = [f"infrasight-{uuid.uuid4().hex[:8]}.{number}" for number in range(2)]
    silences, times = asking.said("containers are not told of"), asking.said(TOLD_OF)
    containerd.stop()
    asking.wait_for("containers are not told of", silences + 1)
    with cgroup(f"/default/{names[0]}") as place:
        child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {place}/cgroup.procs; /bin/true {names[0]} first; exec /bin/true {names[0]} last"])
        assert child.wait() == 0
    assert {(row["container_id"], row["identity"]) for row in told(asking, names[0], "path")} == {(names[0], "path")}
    containerd.start()
    asking.wait_for(TOLD_OF, times + 1)
    containerd.run(names[1], script(names[1]))
    assert {(row["container_id"], row["image"], row["identity"]) for row in told(asking, names[1])} == {(names[1], IMAGE, "complete")}
    assert asking.query("SELECT * FROM loss WHERE probe IN ('execve', 'process')") == []


@pytest.mark.needs("podman", "busybox")
def test_podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is asked in another language, and told apart from docker."""
    name = f"infrasight-{uuid.uuid4().hex[:8]}"
    with Podman() as podman:
        monkeypatch.setenv("INFRASIGHT_RUNTIMES", f"docker:{podman.socket}")
        with System(tmp_path) as asking:
            asking.wait_for(TOLD_OF)
            podman.run(name, script(name), "--label", "team=a")
            rows = told(asking, name)
    assert {(row["container_name"], row["image"], row["identity"]) for row in rows} == {(name, IMAGE, "complete")}
    assert all("team=a" in row["container_labels"] for row in rows)
    assert {(row["container_runtime"], len(row["container_id"])) for row in rows} == {("podman", 64)}


def test_cgroups_by_the_names_that_runtimes_give(system: System) -> None:
    """A process that is moved there and ends: all that it does from then on."""
    id, word, user = uuid.uuid4().hex * 2, uuid.uuid4().hex[:12], "/user.slice/user-1000.slice/user@1000.service"
    made = {
        f"/system.slice/docker-{id}.scope": (id, "docker", ""),
        f"/docker/{id}": (id, "docker", ""),
        f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/cri-containerd-{id}.scope": (id, "containerd", POD),
        f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{id}.scope/container": (id, "cri-o", POD),
        f"/kubepods/besteffort/pod{POD}/{id}": (id, "", POD),
        f"{user}/user.slice/libpod-{id}.scope/container": (id, "podman", ""),
        f"/default/{word}": (word, "containerd", ""),
        f"/lxc.payload.{word}/init.scope": (word, "lxc", ""),
        f"/system.slice/docker-{id}.scope/docker/{id[::-1]}": (id[::-1], "docker", ""),
        f"{user}/app.slice/{word}.service": ("", "", ""),
        f"/machine.slice/libpod-conmon-{id}.scope": ("", "", ""),
    }
    pids, ids = {}, {}
    for path in made:
        with cgroup(path) as place:
            ids[path] = place.stat().st_ino
            child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {place}/cgroup.procs; exec /bin/true"])
            assert child.wait() == 0
            pids[path] = child.pid
    assert len(set(pids.values())) == len(made), "pids came round"
    found = of_process(system, list(pids.values()))
    for path, (container, runtime, pod) in made.items():
        rows = [row for row in found[pids[path]] if int(row["cgroup_id"]) == ids[path]]
        assert {row["kind"] for row in rows} == {"execve", "open", "process"}
        assert {(row["container_id"], row["container_runtime"], row["pod_uid"]) for row in rows} == {(container, runtime, pod)}, path
        assert found[pids[path]][-1] in rows, "its end"
        assert {row["container_id"] for row in found[pids[path]][:2]} == {""}, "before it was moved"


def test_a_cgroup_that_was_there_before(system: System, tmp_path: Path) -> None:
    """The node is told of no cgroup that was made before it: it looks for them when it begins."""
    id = uuid.uuid4().hex * 2
    with cgroup(f"/docker/{id}") as place, System(tmp_path) as later:
        child = subprocess.Popen(["/bin/sh", "-c", f"echo $$ > {place}/cgroup.procs; exec /bin/true {os.getpid()}"])
        assert child.wait() == 0
        for each in (system, later):
            rows = of_process(each, [child.pid])[child.pid]
            assert (rows[-1]["container_id"], rows[-1]["kind"]) == (id, "process")
