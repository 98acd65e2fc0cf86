"""Where runtimes are, as people write it."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infrasight.errors import SettingsError
from infrasight.node.settings import Settings
from infrasight.runtimes import USUAL, Place, of_users
from infrasight.runtimes.containerd import Containerd
from infrasight.runtimes.places import USERS_MAX
from infrasight.settings import parse
from tests.runtimes.fake import FakeContainerd
from tests.runtimes.fake import listening as fake_listening


async def test_a_place() -> None:
    place = Place("docker:/run/podman/podman.sock")
    assert (place.language, place.socket, str(place)) == ("docker", Path("/run/podman/podman.sock"), "docker:/run/podman/podman.sock")
    assert place == Place(str(place))
    assert {place, Place(str(place)), Place("containerd:/run/x")} == {place, Place("containerd:/run/x")}
    runtime = Place("containerd:/run/x").runtime(1.0)
    assert isinstance(runtime, Containerd)
    await runtime.close()


@contextlib.contextmanager
def listening(path: Path, owner: int = 0) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))
        one.listen()
        os.chown(path, owner, owner)
        yield path


def found(run_user: Path) -> list[str]:
    return [str(place).replace(str(run_user), "") for place in of_users(run_user)]


@pytest.mark.parametrize("language", ["containerd", "cri", "docker"])
async def test_what_is_spoken(language: str) -> None:
    runtime = Place(f"{language}:/run/x").runtime(1.0, "node-1")
    assert type(runtime).__name__.lower() == language
    runtime.seek(b"x")
    await runtime.close()
    await runtime.close()


@pytest.mark.needs("root")
def test_users_sockets(tmp_path: Path) -> None:
    with listening(tmp_path / "1000/podman/podman.sock", 1000), listening(tmp_path / "900/docker.sock", 900), listening(tmp_path / "0/docker.sock"):
        assert found(tmp_path) == ["docker:/900/docker.sock", "docker:/1000/podman/podman.sock"]
        assert {place.owner for place in of_users(tmp_path)} == {900, 1000}
        (tmp_path / "1000/podman/podman.sock").unlink()
        assert found(tmp_path) == ["docker:/900/docker.sock"]
    assert of_users(tmp_path / "nowhere") == []


@pytest.mark.needs("root")
def test_what_a_user_puts_there_that_is_no_socket_of_theirs(tmp_path: Path) -> None:
    """A link to the system's own, a pipe that nobody writes to, a file, another's."""
    with listening(tmp_path / "docker.sock") as real, listening(tmp_path / "1003/docker.sock", 1000):
        for user in (1000, 1001, 1002):
            (tmp_path / str(user)).mkdir()
        (tmp_path / "1000/docker.sock").symlink_to(real)
        os.mkfifo(tmp_path / "1001/docker.sock")
        (tmp_path / "1002/docker.sock").touch()
        for user, pid in ((1000, "1"), (1001, "x"), (1002, "9" * 30)):
            (tmp_path / f"{user}/containerd-rootless").mkdir()
            (tmp_path / f"{user}/containerd-rootless/child_pid").write_text(pid)
        (tmp_path / "1003/containerd-rootless").mkdir()
        os.mkfifo(tmp_path / "1003/containerd-rootless/child_pid")
        (tmp_path / "x").mkdir()
        (tmp_path / "-5").mkdir()
        assert found(tmp_path) == []


@pytest.mark.needs("root")
def test_so_many_of_users_at_most(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        for user in range(1, USERS_MAX + 9):
            stack.enter_context(listening(tmp_path / f"{user}/docker.sock", user))
        assert found(tmp_path) == [f"docker:/{user}/docker.sock" for user in range(1, USERS_MAX + 1)]


@pytest.mark.needs("root")
async def test_a_socket_that_is_held_is_the_one_that_is_connected_to(tmp_path: Path) -> None:
    """Whatever is put in its place."""
    path = tmp_path / "s"
    async with fake_listening(FakeContainerd(), path):
        held = Place(f"containerd:{path}").hold()
        assert held is not None
        path.unlink()
        path.symlink_to("/nowhere")
        with held:
            runtime = Place(f"containerd:{path}").runtime(1.0, held=held)
            await runtime.answer()
            await runtime.close()
        assert held.user == b""
        path.unlink()


@pytest.mark.needs("root")
def test_whose_a_socket_is(tmp_path: Path) -> None:
    for owner, user in ((0, b""), (1000, b"1000")):
        with listening(tmp_path / str(owner), owner) as path:
            held = Place(f"docker:{path}").hold()
            assert held is not None
            with held:
                assert held.user == user
    assert Place("docker:/nowhere/s").hold() is None
    assert Place(f"docker:{tmp_path}").hold() is None
    assert Place("docker:/a\0b").hold() is None


@pytest.mark.parametrize("text", ["", "docker", "docker:", "docker:run/x", "podman:/run/x", "/run/docker.sock", "none"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no place of a runtime such as docker:/run/docker.sock"):
        Place(text)


def test_as_settings() -> None:
    def settings(*argv: str) -> Settings:
        return parse(Settings, argv, prog="node", description="")

    def places(*argv: str) -> tuple[Place, ...]:
        return settings(*argv).places

    assert places() == USUAL
    assert places("--runtimes", "none") == ()
    assert places("--runtimes", "docker:/a,containerd:/b") == (Place("docker:/a"), Place("containerd:/b"))
    assert places("--runtimes", "docker:/a,users") == (Place("docker:/a"),)
    assert places("--runtimes", "users") == ()
    asked = [settings(*argv).of_users for argv in ((), ("--runtimes", "none"), ("--runtimes", "docker:/a"), ("--runtimes", "docker:/a,users"))]
    assert asked == [True, False, False, True]
    with pytest.raises(SettingsError, match=r"^--runtimes: '/run/docker.sock' is no place"):
        places("--runtimes", "/run/docker.sock")
