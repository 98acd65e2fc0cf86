"""Which container a cgroup's path tells of: paths as runtimes and cgroup drivers make them, and such as only look like them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrasight.node.containers.containment import NOWHERE, Container, container_of

A, B = "a1" * 32, "0b" * 32
POD, STATIC = "0ca3b0a6-7e8f-4b59-9d0b-1f6e2a3c4d5e", "f" * 32
SLICE = POD.replace("-", "_")
KUBE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SLICE}.slice"
USER = "/user.slice/user-1000.slice/user@1000.service"
BUILD = "xktzmh3w0a9b8c7d6e5f4g3h2"


@pytest.mark.parametrize(
    ("path", "container", "runtime", "pod"),
    [
        # docker, systemd and cgroupfs driver, rootless, with a parent of one's own
        (f"/system.slice/docker-{A}.scope", A, "docker", ""),
        (f"/docker/{A}", A, "docker", ""),
        (f"{USER}/app.slice/docker-{A}.scope", A, "docker", ""),
        (f"/jobs.slice/docker-{A}.scope", A, "docker", ""),
        (f"/jobs/{A}", A, "", ""),
        # below a container's own cgroup
        (f"/system.slice/docker-{A}.scope/init.scope", A, "docker", ""),
        (f"/docker/{A}/system.slice/nginx.service", A, "docker", ""),
        # Kubernetes: containerd, cri-o, docker, which the cgroupfs driver does not tell apart; k3s is containerd
        (f"{KUBE}/cri-containerd-{A}.scope", A, "containerd", POD),
        (f"{KUBE}/crio-{A}.scope", A, "cri-o", POD),
        (f"{KUBE}/crio-{A}.scope/container", A, "cri-o", POD),
        (f"{KUBE}/docker-{A}.scope", A, "docker", POD),
        (f"/kubepods.slice/kubepods-pod{SLICE}.slice/cri-containerd-{A}.scope", A, "containerd", POD),
        (f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{STATIC}.slice/cri-containerd-{A}.scope", A, "containerd", STATIC),
        (f"/kubepods/burstable/pod{POD}/{A}", A, "", POD),
        (f"/kubepods/besteffort/pod{POD}/{A}", A, "", POD),
        (f"/kubepods/pod{POD}/{A}", A, "", POD),
        (f"/kubepods/pod{STATIC}/crio-{A}", A, "cri-o", STATIC),
        (f"{USER}/k3s-rootless.service/kubepods/burstable/pod{POD}/{A}", A, "", POD),
        # what the systemd driver was meant to take apart
        (f"/system.slice/containerd.service/kubepods-burstable-pod{SLICE}.slice:cri-containerd:{A}", A, "containerd", POD),
        (f"/kubepods-pod{SLICE}.slice:cri-containerd:{A}", A, "containerd", POD),
        # a pod's cgroup itself
        (KUBE, "", "", POD),
        # containerd without Kubernetes
        ("/default/web-1", "web-1", "containerd", ""),
        ("/default/redis_2.x", "redis_2.x", "containerd", ""),
        (f"/default/{A}", A, "containerd", ""),
        (f"/k8s.io/{A}", A, "containerd", ""),
        (f"/system.slice/nerdctl-{A}.scope", A, "containerd", ""),
        (f"{USER}/user.slice/nerdctl-{A}.scope", A, "containerd", ""),
        # podman
        (f"/machine.slice/libpod-{A}.scope", A, "podman", ""),
        (f"/machine.slice/libpod-{A}.scope/container", A, "podman", ""),
        (f"/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope/container", A, "podman", ""),
        (f"{USER}/user.slice/libpod-{A}.scope/container", A, "podman", ""),
        (f"/libpod_parent/libpod-{A}", A, "podman", ""),
        (f"/system.slice/web.service/libpod-payload-{A}", A, "podman", ""),
        # others
        ("/lxc.payload.web/system.slice/nginx.service", "web", "lxc", ""),
        ("/lxc/100/ns/init.scope", "100", "lxc", ""),
        (r"/machine.slice/systemd-nspawn@my\x2dbox.service/payload/init.scope", "my-box", "systemd-nspawn", ""),
        ("/machine.slice/machine-box.scope/payload", "box", "systemd-nspawn", ""),
        (f"/buildkit/{BUILD}", BUILD, "buildkit", ""),
        (f"/docker/buildkit/{BUILD}", BUILD, "buildkit", ""),
        ("/system.slice/runc-my.box_1+x.scope", "my.box_1+x", "runc", ""),
        (f"{USER}/user.slice/crun-box.scope", "box", "crun", ""),
        # containers in containers: the innermost, and the pod around it
        (f"/docker/{A}/docker/{B}", B, "docker", ""),
        (f"/system.slice/docker-{A}.scope/kubelet.slice/kubelet-kubepods-pod{SLICE}.slice/cri-containerd-{B}.scope", B, "containerd", POD),
        (f"/docker/{A}/kubelet/kubepods/burstable/pod{POD}/{B}", B, "", POD),
        (f"{KUBE}/cri-containerd-{A}.scope/docker/{B}", B, "docker", POD),
        (f"/docker/{A}/default/inner", "inner", "containerd", ""),
        (f"/lxc.payload.web/system.slice/docker-{A}.scope", A, "docker", ""),
        (f"{KUBE}/cri-containerd-{A}.scope/kubepods/pod{STATIC}/{B}", B, "", STATIC),
    ],
)
def test_a_container(path: str, container: str, runtime: str, pod: str) -> None:
    found = container_of(path.encode())
    assert (found.id, found.runtime, found.pod_uid, found.started_ns) == (container.encode(), runtime.encode(), pod.encode(), 0)


@pytest.mark.parametrize(
    ("path", "space", "realm"),
    [
        (f"/docker/{A}", "", ""),
        ("/default/web", "default", ""),
        (f"/k8s.io/{A}/inside", "k8s.io", ""),
        (f"{USER}/user.slice/libpod-{A}.scope/container", "", "1000"),
        (f"/user.slice/user-0.slice/user@0.service/docker-{A}.scope", "", ""),
        (f"/user.slice/user-1000.slice.d/docker-{A}.scope", "", ""),
        (f"{USER}/app.slice", "", "1000"),
        # in containers: a name may be anybody's, an id of 64 digits is not
        (f"/docker/{A}/default/web", "default", f"in:{A}"),
        (f"/docker/{A}/docker/{B}", "", ""),
        (f"/docker/{A}{USER}/docker-{B}.scope", "", ""),
        (f"{USER}/docker-{A}.scope/docker/{B}", "", "1000"),
        ("/default/web/default/web", "default", ""),
    ],
)
def test_who_may_tell_of_it(path: str, space: str, realm: str) -> None:
    found = container_of(path.encode())
    assert (found.space, found.realm) == (space.encode(), realm.encode())


def test_of_a_path_that_is_cut_the_realm_is_known_from_above() -> None:
    end = f"{USER}/docker-{A}.scope".encode()
    assert container_of(end, whole=False).realm == b""
    assert container_of(end, Container(realm=b"1001"), whole=False).realm == b"1001"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/init.scope",
        "/system.slice",
        "/system.slice/docker.service",
        "/system.slice/containerd.service",
        "/system.slice/docker.socket",
        f"/system.slice/docker-{A}.service",
        f"/system.slice/var-lib-docker-containers-{A}-mounts-shm.mount",
        f"/system.slice/run-containerd-io.containerd.runtime.v2.task-k8s.io-{A}-rootfs.mount",
        f"/system.slice/run-docker-runtime\\x2drunc-moby-{A}-runc.abc.mount",
        # what looks after a container is not in it
        f"/machine.slice/libpod-conmon-{A}.scope",
        f"/libpod_parent/libpod-conmon-{A}",
        f"/kubepods.slice/crio-conmon-{A}.scope",
        "/lxc.monitor.web",
        "/lxc",
        r"/machine.slice/systemd-nspawn@box.service",
        r"/machine.slice/systemd-nspawn@box.service/supervisor",
        r"/machine.slice/machine-qemu\x2d1\x2dguest.scope/libvirt/emulator",
        f"/machine.slice/machine-libpod_pod_{B}.slice",
        "/buildkit",
        "/default",
        "/kubepods.slice/kubepods-burstable.slice",
        "/kubepods/burstable",
        # sessions of users, and what they run
        "/user.slice/user-1000.slice/session-3.scope",
        f"{USER}/app.slice/app-gnome-org.gnome.Terminal-2841.scope",
        f"{USER}/app.slice/dbus-:1.2-org.example@0.service",
        f"{USER}/session.slice/default/x",
        # ids that are none
        f"/docker/{A[:-1]}",
        f"/docker/{A}0",
        f"/docker/{A.upper()}",
        f"/docker/{A[:-1]}g",
        f"/docker/{A}\n",
        f"/docker/\n{A}",
        f"/system.slice/docker-{A}.scope.d",
        f"/system.slice/docker-{A}-x.scope",
        f"/podman/pod{POD}",
        f"/kubepods.slice/kubepods-pod{SLICE}x.slice",
        f"/kubepods/burstable/pod{POD[:-1]}",
        f"/system.slice/pod{POD}",
        "/default/-x",
        "/default/x..y",
        "/default/\x1b[31m",
        "/default/x\n",
        "/lxc.payload.",
        "/a:b:c",
        "a" * 64,
        "",
    ],
)
def test_no_container(path: str) -> None:
    found = container_of(path.encode())
    assert (found.id, found.runtime, found.pod_uid) == (b"", b"", b"")


def test_what_is_known_of_the_part_above() -> None:
    """Where a path is only the end of one."""
    above = container_of(f"{KUBE}/cri-containerd-{A}.scope".encode())
    assert container_of(b"/a/b", above) == above
    assert container_of(f"/x/docker/{B}".encode(), above) == Container(B.encode(), b"docker", POD.encode())
    assert container_of(f"/cri-containerd-{A}.scope/a/b".encode(), above) == above


NAMES = st.binary(max_size=300).map(lambda name: name.replace(b"/", b"").replace(b"\0", b""))
PARTS = st.sampled_from([A, "docker", f"docker-{A}.scope", "default", f"pod{POD}", "kubepods", "lxc", "a:b:c", "::", "payload"]).map(str.encode)


@given(st.lists(NAMES | PARTS, max_size=12))
def test_whatever_the_names_a_path_tells_what_its_parts_tell(names: list[bytes]) -> None:
    """Below a container the same as in it."""
    path = b"".join(b"/" + name for name in (*names, b"-"))
    found = container_of(path)
    assert container_of(path + b"/-") == found
    assert len(found.id) <= len(path)
    assert found.pod_uid in (b"", POD.encode())


def test_a_hostile_path_takes_no_time() -> None:
    """4096 bytes of what patterns begin with."""
    for name in (b"docker-", b"kubepods-", b"a:", b"/", b"a/", b"machine.slice/machine-", b"kubepods/", b"\\x2d"):
        assert container_of(b"/" + name * (4095 // len(name))) == NOWHERE
