"""Which paths are on a list, however they are spelled."""

import errno
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from infrasight.kernel.rules import Match, Rules
from infrasight.schema import PROBES
from infrasight.schema.columns import Source
from infrasight.schema.kinds import KINDS
from tests.kernel.calls import call
from tests.kernel.filters.children import child, follow, openat, opens, told
from tests.kernel.tap import Tap

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]


class Tree:
    """Files below and beside a directory `in`, and ways that lead there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("in", "in/deep", "inside", "out"):
            (root / name).mkdir()
        for name in ("in/file", "in/deep/file", "inside/file", "out/file"):
            (root / name).touch()
        (root / "link").symlink_to("in")
        (root / "out/link").symlink_to(root / "in" / "file")
        (root / "in/leads out").symlink_to("../out/file")
        (root / "hard").hardlink_to(root / "in" / "file")

    @property
    def listed(self) -> Match:
        return Match(paths=frozenset({bytes(self.root / "in")}))


# How a file is asked for (relative to the root, unless it begins with a slash), from where, and whether what is opened lies inside.
SUCCEED: list[tuple[str, str, bool]] = [
    ("/in/file", "", True),
    ("/in/deep/file", "", True),
    ("/in", "", True),
    ("/in/", "", True),
    ("//in//.//file", "", True),
    ("/out/../in/file", "", True),
    ("/out/../in/../in/file", "", True),
    ("/link/file", "", True),
    ("/link/deep/file", "", True),
    ("/out/link", "", True),
    ("file", "in", True),
    ("./file", "in", True),
    ("../file", "in/deep", True),
    ("../in/file", "out", True),
    ("../link/file", "out", True),
    (".", "in/deep", True),
    ("..", "in/deep", True),
    ("/in/leads out", "", False),
    ("/in/../out/file", "", False),
    ("/inside/file", "", False),
    ("/out/file", "", False),
    ("/hard", "", False),
    ("../out/file", "in", False),
    ("..", "in", False),
    ("file", "out", False),
    ("/", "", False),
]
# The same where nothing is opened, so only names can tell.
FAIL: list[tuple[str, str, bool]] = [
    ("/in/absent", "", True),
    ("/in/deep/../absent", "", True),
    ("/out/../in/absent", "", True),
    ("/absent/../in/absent", "", True),
    ("absent", "in", True),
    ("absent", "in/deep", True),
    ("../absent", "in/deep", True),
    ("../in/absent", "out", True),
    ("deep/../../in/absent", "in", True),
    ("/in/../absent", "", False),
    ("/inside/absent", "", False),
    ("/in absent", "", False),
    ("../absent", "in", False),
    ("absent", "out", False),
    ("../../../../../../../../../../../../../absent", "in", False),
    ("/in/deep/../../absent", "", False),
]


def ask(tree: Tree, path: str, start: str, by_descriptor: bool) -> tuple[bytes, Callable[[], None], list[int]]:
    """The path as given, and what opens it."""
    given = os.fsencode(f"{tree.root}{path}" if path.startswith("/") else path)
    returned: list[int] = []

    def body() -> None:
        if by_descriptor:
            os._exit(0 if (openat(given, os.open(tree.root / start, os.O_PATH)) >= 0) == bool(returned) else 1)
        os.chdir(tree.root / start)
        os._exit(0 if (openat(given) >= 0) == bool(returned) else 1)

    return given, body, returned


@pytest.mark.parametrize("by_descriptor", [False, True], ids=["working directory", "descriptor"])
@pytest.mark.parametrize(("allowed", "cases"), [(True, SUCCEED), (False, SUCCEED), (True, FAIL), (False, FAIL)], ids=str)
def test_paths(tap: Tap, tmp_path: Path, allowed: bool, cases: list[tuple[str, str, bool]], by_descriptor: bool) -> None:
    """However it is spelled, what counts is where it leads."""
    tree = Tree(tmp_path)
    follow(tap, open=Rules(allow=tree.listed) if allowed else Rules(deny=tree.listed))
    wrong = []
    for path, start, inside in cases:
        given, body, returned = ask(tree, path, start, by_descriptor)
        if cases is SUCCEED:
            returned.append(0)
        found = told(tap, child(body), path=given)
        if len(found) != (inside == allowed):
            wrong.append((path, start, inside, len(found)))
    assert wrong == []


def test_the_root_is_above_everything(tap: Tap, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (bytes(tmp_path / "file"), bytes(tmp_path / "absent"), b"/", b"/absent"):
        follow(tap, open=Rules(allow=Match(paths=frozenset({b"/"}))))
        assert len(told(tap, child(opens(3, path)), path=path)) == 3
        follow(tap, open=Rules(deny=Match(paths=frozenset({b"/"}))))
        assert told(tap, child(opens(3, path)), path=path) == []


@pytest.mark.parametrize("depth", [1, 31, 32])
def test_how_deep_a_list_can_go(tap: Tap, depth: int) -> None:
    listed = b"/" + b"/".join(b"%d" % number for number in range(depth))
    follow(tap, open=Rules(allow=Match(paths=frozenset({listed}))))
    for path, inside in (
        (listed, True),
        (listed + b"/x", True),
        (listed + b"/x" * 20, True),
        (listed + b"x", False),
        (listed.rpartition(b"/")[0], False),
    ):
        assert len(told(tap, child(opens(2, path or b"/")), path=path or b"/")) == 2 * inside, (path, inside)


def test_a_directory_inside_one_that_is_denied(tap: Tap, tmp_path: Path) -> None:
    """Deny wins, whichever is the narrower."""
    for allow, deny, expected in (("in", "in/deep", (1, 0, 0)), ("in/deep", "in", (0, 0, 0))):
        rules = Rules(allow=Match(paths=frozenset({bytes(tmp_path / allow)})), deny=Match(paths=frozenset({bytes(tmp_path / deny)})))
        follow(tap, open=rules)
        paths = [bytes(tmp_path / name) for name in ("in/x", "in/deep/x", "x")]
        assert tuple(len(told(tap, child(opens(1, path)), path=path)) for path in paths) == expected


def test_names_of_any_bytes_and_lengths(tap: Tap, tmp_path: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"...", b"..a", b".hidden", b"x" * 31, b"x" * 39, b"x" * 40, b"x" * 100):
        place = bytes(tmp_path) + b"/" + name
        os.mkdir(place)
        follow(tap, open=Rules(allow=Match(paths=frozenset({place}))))
        for path in (place, place + b"/absent", place + b"/../" + name):
            assert len(told(tap, child(opens(2, path)), path=path)) == 2, path
        assert told(tap, child(opens(2, place + b"x")), path=place + b"x") == []


def test_paths_in_a_chroot(tap: Tap, tmp_path: Path) -> None:
    """What is opened is where it is for the host."""
    tree = Tree(tmp_path)

    def body() -> None:
        os.chroot(tree.root)
        os.chdir("/out")
        assert openat(b"/in/file") >= 0
        assert openat(b"../in/deep/file") >= 0
        assert openat(b"../../../../in/file") >= 0

    follow(tap, open=Rules(allow=tree.listed))
    pid = child(body)
    assert [each["path"] for each in tap.records("open", pid=pid) if b"in" in each["path"]] == [
        b"/in/file",
        b"../in/deep/file",
        b"../../../../in/file",
    ]


def test_paths_in_a_root_for_one_call(tap: Tap, tmp_path: Path) -> None:
    """RESOLVE_IN_ROOT of openat2: what is not there would have been below the directory that was given."""
    tree = Tree(tmp_path)
    given = [b"/in/absent", b"../../in/absent", b"out/../../in/absent", b"/out/absent", b"../out/absent"]

    def body() -> None:
        root = os.open(tree.root, os.O_PATH)
        for path in given:
            assert call("openat2", root, path, bytes(16) + (0x10).to_bytes(8, "little"), 24) == -errno.ENOENT

    for rules, expected in ((Rules(allow=tree.listed), given[:3]), (Rules(deny=tree.listed), given[3:])):
        follow(tap, open=rules)
        pid = child(body)
        assert [each["path"] for each in tap.records("open", pid=pid) if each["path"] in given] == expected


TWO_PATHS: dict[str, Callable[[str, str], None]] = {"rename": os.rename, "link": os.link}


@pytest.mark.parametrize("probe", [name for name in TWO_PATHS if name in PROBES])
def test_one_of_two_paths_is_enough(tap: Tap, tmp_path: Path, probe: str) -> None:
    tree = Tree(tmp_path)
    assert sum(slot.source is Source.PATH for slot in KINDS[probe].slots) == 2
    follow(tap, **{probe: Rules(allow=tree.listed)})

    def body() -> None:
        for one, other in (("in/file", "out/new"), ("out/file", "in/new"), ("out/new", "inside/new")):
            TWO_PATHS[probe](str(tmp_path / one), str(tmp_path / other))

    pid = child(body)
    assert len(tap.records(probe, pid=pid)) == 2
    follow(tap, **{probe: Rules(deny=Match(paths=frozenset({bytes(tmp_path / "in"), bytes(tmp_path / "inside")})))})

    def again() -> None:
        for one, other in (("in/new", "inside/n1"), ("inside/new", "out/n2"), ("out/n2", "out/n3")):
            TWO_PATHS[probe](str(tmp_path / one), str(tmp_path / other))

    pid = child(again)
    assert len(tap.records(probe, pid=pid)) == 2, "one that is not denied is enough"


def test_paths_of_unix_sockets(tap: Tap, tmp_path: Path) -> None:
    """As docs/FILTERS.md says: by where the socket is."""
    tree = Tree(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "in" / "s"))
        server.listen()

        def body() -> None:
            for path in ("in/s", "link/s", "out/absent", "in/absent"):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect_ex(str(tmp_path / path))

        follow(tap, connect=Rules(allow=tree.listed))
        allowed = [os.path.relpath(each["path"].rstrip(b"\0"), bytes(tmp_path)) for each in tap.records("connect", pid=child(body))]
        follow(tap, connect=Rules(deny=tree.listed))
        denied = [os.path.relpath(each["path"].rstrip(b"\0"), bytes(tmp_path)) for each in tap.records("connect", pid=child(body))]
    assert (allowed, denied) == ([b"in/s", b"link/s", b"in/absent"], [b"out/absent"])


def executes(fd: int, path: bytes) -> Callable[[], None]:
    """What becomes a script, by a descriptor and a path from there."""

    def body() -> None:
        os.set_inheritable(fd, True)
        call("execveat", fd, path, None, None, 0x1000)

    return body


def test_execs(tap: Tap, tmp_path: Path) -> None:
    """A program by where it is, however it was called; a script by where the script is."""
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "true").write_bytes(Path(os.path.realpath("/bin/true")).read_bytes())
        (tmp_path / name / "script").write_text("#!/bin/sh\nexit 0\n")
        for file in ("true", "script"):
            (tmp_path / name / file).chmod(0o755)
    (tmp_path / "out" / "link").symlink_to("../in/true")
    (tmp_path / "in" / "link").symlink_to("../out/true")
    fds = [os.open(tmp_path / path, os.O_RDONLY) for path in ("in", "out", "in/script", "out/script")]
    starts = [(fds[0], b"script"), (fds[0], b"../out/script"), (fds[1], b"script"), (fds[1], b"../in/script"), (fds[2], b""), (fds[3], b"")]
    commands = ["in/true", "out/true", "out/link", "in/link", "out/../in/true", "in/../out/true", "in/script", "out/script"]
    inside = ["in/true", "out/link", "out/../in/true", "in/script"]
    listed = Match(paths=frozenset({bytes(tmp_path / "in")}))
    for rules, expected in ((Rules(allow=listed), inside), (Rules(deny=listed), [each for each in commands if each not in inside])):
        follow(tap, execve=rules)
        children = {command: subprocess.Popen([command], executable=f"{tmp_path}/{command}") for command in commands}
        assert [each.wait() for each in children.values()] == [0] * len(commands)
        assert [command for command, each in children.items() if tap.records("execve", pid=each.pid)] == expected
        by_descriptor = [bool(tap.records("execve", pid=child(executes(*start)))) for start in starts]
        assert by_descriptor == [where == (expected is inside) for where in (True, False, False, True, True, False)]
    for fd in fds:
        os.close(fd)
