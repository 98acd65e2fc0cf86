"""Pods driven through the Container Runtime Interface, as the kubelet drives them, on the host's network."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infrasight.errors import CallFailed
from infrasight.wire._generated.others.runtimes.cri_driving import (
    ContainerConfig,
    ContainerMetadata,
    Containers,
    ContainerSecurity,
    CreateContainer,
    Done,
    Filter,
    Id,
    ImageSpec,
    LinuxContainer,
    LinuxPod,
    ListContainers,
    Metadata,
    NamespaceMode,
    Namespaces,
    PodConfig,
    PodSecurity,
    RunPod,
    State,
)
from infrasight.wire.local import LocalChannel
from tests.e2e.cgroups import remove_empty
from tests.e2e.containerd import IMAGE
from tests.waiting import LIMIT_S

_EXITED = 2
NAMESPACE = "shop"
"""Of all pods."""
_HOST = Namespaces(network=NamespaceMode.NODE, pid=NamespaceMode.CONTAINER, ipc=NamespaceMode.NODE)


@dataclass(frozen=True)
class Pod:
    """One that runs."""

    id: str
    config: PodConfig

    @property
    def name(self) -> str:
        return self.config.metadata.name if self.config.metadata else ""

    @property
    def uid(self) -> str:
        return self.config.metadata.uid if self.config.metadata else ""


class Driver:
    """Has the runtime at a socket run pods. A context manager."""

    def __init__(self, socket: Path) -> None:
        self._channel = LocalChannel(socket, "container runtime", 60.0)
        self._top = f"/infrasight-{uuid.uuid4().hex[:8]}/kubepods/burstable"

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        remove_empty(self._top)

    async def _ready(self) -> None:
        """Once it takes calls: one that was just started listens before that."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    await self._channel.ask(_route("ListContainers"), ListContainers(), Containers, {})
                except CallFailed:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def run_pod(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        *,
        privileged: bool = False,
        uid: str = "",
    ) -> Pod:
        """A pod without containers, labelled as the kubelet does it; in a `privileged` one there can be such containers."""
        await self._ready()
        uid = uid or str(uuid.uuid4())
        who = {"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": NAMESPACE, "io.kubernetes.pod.uid": uid}
        config = PodConfig(
            metadata=Metadata(name=name, uid=uid, namespace=NAMESPACE),
            labels={**(labels or {}), **who},
            annotations={"kubernetes.io/config.source": "api", **(annotations or {})},
            linux=LinuxPod(cgroup_parent=f"{self._top}/pod{uid}", security=PodSecurity(namespaces=_HOST, privileged=privileged)),
        )
        return Pod((await self._channel.ask(_route("RunPodSandbox"), RunPod(config=config), Id, {})).id, config)

    async def create(self, pod: Pod, name: str, script: str, *, privileged: bool = False) -> str:
        """A container of a pod, that runs a shell script once it is started; its id."""
        who = {key: value for key, value in pod.config.labels.items() if key.startswith("io.kubernetes.")}
        config = ContainerConfig(
            metadata=ContainerMetadata(name=name),
            image=ImageSpec(image=IMAGE),
            command=["sh", "-c", script],
            labels={**who, "io.kubernetes.container.name": name},
            annotations={"io.kubernetes.container.restartCount": "0"},
            linux=LinuxContainer(security=ContainerSecurity(privileged=privileged, namespaces=_HOST)),
        )
        return (await self._channel.ask(_route("CreateContainer"), CreateContainer(pod=pod.id, config=config, pod_config=pod.config), Id, {})).id

    async def start(self, id: str) -> None:
        """Start a container."""
        await self._channel.ask(_route("StartContainer"), Id(id=id), Done, {})

    async def ended(self, id: str) -> None:
        """Once all of a container has ended."""
        wanted = ListContainers(filter=Filter(id=id, state=State(state=_EXITED)))
        async with asyncio.timeout(LIMIT_S):
            while not (await self._channel.ask(_route("ListContainers"), wanted, Containers, {})).containers:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.02)

    async def remove(self, id: str) -> None:
        """End a container and forget it."""
        await self._channel.ask(_route("RemoveContainer"), Id(id=id), Done, {})

    async def remove_pod(self, pod: Pod) -> None:
        """And all of its containers."""
        for method in ("StopPodSandbox", "RemovePodSandbox"):
            await self._channel.ask(_route(method), Id(id=pod.id), Done, {})
        remove_empty(f"{self._top}/pod{pod.uid}")

    @contextlib.asynccontextmanager
    async def pod(
        self, name: str, labels: Mapping[str, str] | None = None, annotations: Mapping[str, str] | None = None, *, privileged: bool = False
    ) -> AsyncIterator[Pod]:
        """A pod for a while."""
        pod = await self.run_pod(name, labels, annotations, privileged=privileged)
        try:
            yield pod
        finally:
            await self.remove_pod(pod)


def _route(method: str) -> str:
    return f"/runtime.v1.RuntimeService/{method}"
