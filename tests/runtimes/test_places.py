"""Where runtimes are, as people write it."""

from pathlib import Path

import pytest

from infrasight.errors import SettingsError
from infrasight.node.settings import Settings
from infrasight.runtimes import USUAL, Place
from infrasight.runtimes.containerd import Containerd
from infrasight.settings import parse


async def test_a_place() -> None:
    place = Place("docker:/run/podman/podman.sock")
    assert (place.language, place.socket, str(place)) == ("docker", Path("/run/podman/podman.sock"), "docker:/run/podman/podman.sock")
    assert place == Place(str(place))
    assert {place, Place(str(place)), Place("containerd:/run/x")} == {place, Place("containerd:/run/x")}
    runtime = Place("containerd:/run/x").runtime(1.0)
    assert isinstance(runtime, Containerd)
    await runtime.close()


@pytest.mark.parametrize("text", ["", "docker", "docker:", "docker:run/x", "podman:/run/x", "/run/docker.sock", "none"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no place of a runtime such as docker:/run/docker.sock"):
        Place(text)


def test_as_settings() -> None:
    def places(*argv: str) -> tuple[Place, ...]:
        return parse(Settings, argv, prog="node", description="").places

    assert places() == USUAL
    assert places("--runtimes", "none") == ()
    assert places("--runtimes", "docker:/a,containerd:/b") == (Place("docker:/a"), Place("containerd:/b"))
    with pytest.raises(SettingsError, match=r"^--runtimes: '/run/docker.sock' is no place"):
        places("--runtimes", "/run/docker.sock")
