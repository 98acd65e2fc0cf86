"""What the kernel passes on under rules, call by call: each call is made by a child of known user, name, cgroup and path, and counted."""

import ctypes
import errno
import os
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path

import pytest

from infrasight.errors import KernelError
from infrasight.kernel.rules import MAPS, Match, Outcome, Rate, Rules
from infrasight.node.policy import MOST
from infrasight.schema import PROBES
from infrasight.schema.columns import Source
from infrasight.schema.events.process import EXEC, EXIT, FORK
from infrasight.schema.kinds import KINDS
from tests.kernel.calls import AT_FDCWD, cgroup_id
from tests.kernel.tap import Record, Tap, tapping

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
SOMEBODY = 54321
"""A user whom nobody else on the machine is, so that what is counted is ours."""
ALL_OF_THEM = 211
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def tracing() -> Iterator[Tap]:
    with tapping(()) as tap:
        yield tap


@pytest.fixture
def tap(tracing: Tap) -> Iterator[Tap]:
    yield tracing
    tracing.tracing.apply(())


def follow(tap: Tap, **rules: Rules) -> None:
    """These probes, by these rules."""
    tap.tracing.apply(tuple(rules), rules)


def child(body: Callable[[], None], *, uid: int = 0, comm: bytes = b"", cgroup: Path | None = None) -> int:
    """The pid of a process that has run `body` and ended."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            if cgroup:
                (cgroup / "cgroup.procs").write_text(str(os.getpid()))
            if comm:
                _libc.prctl(15, comm, 0, 0, 0)  # PR_SET_NAME
            if uid:
                os.setresuid(uid, uid, uid)
            body()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    return pid


def openat(path: bytes, dirfd: int = AT_FDCWD) -> int:
    fd = int(_libc.openat(dirfd, path, os.O_RDONLY))
    return fd if fd >= 0 else -ctypes.get_errno()


def opens(times: int, path: bytes = b"/nonexistent/filtered") -> Callable[[], None]:
    def body() -> None:
        for _ in range(times):
            openat(path)

    return body


def chmods(times: int, path: bytes = b"/nonexistent/filtered") -> Callable[[], None]:
    def body() -> None:
        for _ in range(times):
            _libc.chmod(path, 0o600)

    return body


def told(tap: Tap, pid: int, probe: str = "open", path: bytes = b"/nonexistent/filtered") -> list[Record]:
    return tap.records(probe, pid=pid, path=path)


def users(*uids: int) -> Match:
    return Match(uids=frozenset(uids))


def test_users(tap: Tap) -> None:
    """The real one. Deny wins."""
    for rules, expected in (
        (Rules(), (7, 5)),
        (Rules(allow=users(SOMEBODY, 99)), (7, 0)),
        (Rules(deny=users(SOMEBODY, 99)), (0, 5)),
        (Rules(allow=users(SOMEBODY, 0), deny=users(0)), (7, 0)),
        (Rules(allow=users(SOMEBODY), deny=users(SOMEBODY)), (0, 0)),
        (Rules(allow=users()), (0, 0)),
        (Rules(deny=users()), (7, 5)),
    ):
        follow(tap, open=rules)
        pids = child(opens(7), uid=SOMEBODY), child(opens(5))
        assert tuple(len(told(tap, pid)) for pid in pids) == expected, rules


def test_the_real_user_counts(tap: Tap) -> None:
    follow(tap, open=Rules(deny=users(SOMEBODY)))

    def pretend() -> None:
        os.seteuid(SOMEBODY)
        opens(3)()

    assert len(told(tap, child(pretend))) == 3


def test_names(tap: Tap) -> None:
    """Exactly, all 15 bytes; of the thread, as it is called when the call ends."""
    full, longer = b"fifteen bytes!!", b"fifteen bytes!!!"
    names = [b"abc", b"ab", b"abcd", b"ABC", full, longer, b"\xff\n"]
    follow(tap, open=Rules(allow=Match(comms=frozenset({b"abc", full, b"\xff\n"}))))
    assert [len(told(tap, child(opens(3), comm=name))) for name in names] == [3, 0, 0, 0, 3, 3, 3]
    follow(tap, open=Rules(deny=Match(comms=frozenset({b"abc", full, b"\xff\n"}))))
    assert [len(told(tap, child(opens(3), comm=name))) for name in names] == [0, 3, 3, 3, 0, 0, 0]


@pytest.mark.needs("cgroup2")
def test_cgroups(tap: Tap, own_cgroup: Path) -> None:
    """This very one, and not one inside it."""
    inside = own_cgroup / "inside"
    inside.mkdir()
    try:
        mine, one = cgroup_id(), own_cgroup.stat().st_ino
        for rules, expected in (
            (Rules(allow=Match(cgroups=frozenset({one}))), [0, 3, 0]),
            (Rules(deny=Match(cgroups=frozenset({one}))), [3, 0, 3]),
            (Rules(allow=Match(cgroups=frozenset({one, mine}))), [3, 3, 0]),
        ):
            follow(tap, open=rules)
            assert [len(told(tap, child(opens(3), cgroup=place))) for place in (None, own_cgroup, inside)] == expected
    finally:
        inside.rmdir()


def test_lists_of_several_kinds_must_all_agree(tap: Tap) -> None:
    follow(tap, open=Rules(allow=Match(uids=frozenset({SOMEBODY}), comms=frozenset({b"abc"})), deny=Match(comms=frozenset({b"no"}))))
    who = [(SOMEBODY, b"abc"), (SOMEBODY, b"other"), (0, b"abc"), (SOMEBODY, b"no")]
    assert [len(told(tap, child(opens(3), uid=uid, comm=comm))) for uid, comm in who] == [3, 0, 0, 0]


def test_outcome(tap: Tap, tmp_path: Path) -> None:
    """A call that succeeds and one that fails, of which one is told."""
    (tmp_path / "file").touch()
    there, absent = bytes(tmp_path / "file"), bytes(tmp_path / "absent")

    def both() -> None:
        for _ in range(5):
            openat(there)
            openat(absent)

    for outcome, expected in ((Outcome.BOTH, (5, 5)), (Outcome.FAILED, (0, 5)), (Outcome.SUCCEEDED, (5, 0))):
        follow(tap, open=Rules(outcome=outcome))
        pid = child(both)
        assert (len(told(tap, pid, path=there)), len(told(tap, pid, path=absent))) == expected


def test_rules_are_for_one_probe(tap: Tap) -> None:
    follow(tap, open=Rules(deny=users(SOMEBODY)), chmod=Rules(allow=users(SOMEBODY)), ptrace=Rules())

    def all_three() -> None:
        opens(3)()
        chmods(5)()
        _libc.ptrace(16, 2**22 + 5, 0, 0)

    pid, other = child(all_three, uid=SOMEBODY), child(all_three)
    assert [len(tap.records(probe, pid=pid)) for probe in ("chmod", "ptrace")] == [5, 1]
    assert [len(tap.records(probe, pid=other)) for probe in ("chmod", "ptrace")] == [0, 1]
    assert (len(told(tap, pid)), len(told(tap, other))) == (0, 3)


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


def connects(*hosts: str) -> Callable[[], None]:
    def body() -> None:
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.connect((host, 9))

    return body


def connected(tap: Tap, pid: int) -> list[str]:
    """The addresses told of."""
    found = []
    for record in tap.records("connect", pid=pid):
        family = record["family"]
        found.append(socket.inet_ntop(family, record["daddr"][: 4 if family == socket.AF_INET else 16]) if family != socket.AF_UNIX else "unix")
    return found


def networks(*names: str) -> Match:
    return Match(networks=tuple(map(ip_network, names)))


HOSTS = ("127.0.0.1", "127.1.0.1", "127.1.2.3", "127.255.0.1")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(allow=networks("127.0.0.0/8")), HOSTS),
        (Rules(allow=networks("127.1.0.0/16")), HOSTS[1:3]),
        (Rules(allow=networks("127.1.2.3/32", "127.0.0.1/32")), (HOSTS[0], HOSTS[2])),
        (Rules(deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.0.0.0/8"), deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.0.0.0/8", "127.1.2.0/24"), deny=networks("127.1.0.0/16")), (HOSTS[0], HOSTS[3])),
        (Rules(allow=networks("127.1.2.3/32"), deny=networks("127.0.0.0/8")), ()),
        (Rules(deny=networks("0.0.0.0/0")), ()),
        (Rules(allow=networks("0.0.0.0/0")), HOSTS),
        (Rules(allow=networks("128.0.0.0/1")), ()),
        (Rules(allow=networks("127.255.0.0/31")), HOSTS[3:]),
    ],
)
def test_ipv4(tap: Tap, rules: Rules, expected: tuple[str, ...]) -> None:
    follow(tap, connect=rules)
    assert connected(tap, child(connects(*HOSTS))) == list(expected)


@pytest.mark.needs("ipv6")
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (Rules(allow=networks("::1/128")), ["::1"]),
        (Rules(deny=networks("::1/128")), ["127.0.0.1"]),
        (Rules(allow=networks("::/64")), ["::1"]),
        (Rules(allow=networks("127.0.0.0/8")), ["127.0.0.1"]),
        (Rules(deny=networks("::/0")), ["127.0.0.1"]),
        (Rules(allow=networks("::/0")), ["::1"]),
        (Rules(allow=networks("::/0", "0.0.0.0/0")), ["::1", "127.0.0.1"]),
        (Rules(allow=networks("::2/128")), []),
    ],
    ids=lambda each: "" if isinstance(each, list) else None,
)
def test_ipv6(tap: Tap, rules: Rules, expected: list[str]) -> None:
    """Each version by its own networks."""
    follow(tap, connect=rules)
    assert connected(tap, child(connects("::1", "127.0.0.1"))) == expected


@pytest.mark.needs("ipv6")
def test_ipv4_by_way_of_an_ipv6_socket(tap: Tap) -> None:
    """It is IPv4 that is spoken."""
    follow(tap, connect=Rules(deny=networks("127.0.0.0/8")))
    assert connected(tap, child(connects("::ffff:127.0.0.1", "::1"))) == ["::1"]


def test_what_has_no_address(tap: Tap, tmp_path: Path) -> None:
    """A unix socket is on no list of addresses."""

    def body() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect_ex(str(tmp_path / "absent"))

    for rules, expected in ((Rules(allow=networks("0.0.0.0/0", "::/0")), []), (Rules(deny=networks("0.0.0.0/0", "::/0")), ["unix"])):
        follow(tap, connect=rules)
        assert connected(tap, child(body)) == expected


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


def losses(tap: Tap) -> Counter[tuple[str, str]]:
    return Counter(tap.tracing.losses())


HOUR = 3600 * 10**9


def test_repeats_are_counted(tap: Tap) -> None:
    """The first is told; told and counted are what was made."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), repeats_ns=HOUR))
    before = losses(tap)
    pid = child(chmods(ALL_OF_THEM), uid=SOMEBODY)
    found = told(tap, pid, "chmod")
    assert len(found) == 1
    assert losses(tap) - before == {("chmod", "repeated"): ALL_OF_THEM - 1}


def test_what_makes_two_events_the_same(tap: Tap, tmp_path: Path) -> None:
    """The process, what it did, with what arguments, and how it went."""
    follow(tap, chmod=Rules(allow=users(0, SOMEBODY), repeats_ns=HOUR))
    path, other = bytes(tmp_path / "file"), bytes(tmp_path / "other")
    before = losses(tap)

    def body() -> None:
        for _ in range(3):
            for each in (path, other, path + b"x"):
                for mode in (0o600, 0o640):
                    _libc.chmod(each, mode)
        os.mknod(path)
        for _ in range(3):
            _libc.chmod(path, 0o600)

    pid = child(body)
    found = [(each["path"], each["mode"], each["ret"]) for each in tap.records("chmod", pid=pid)]
    expected = [(each, mode, -errno.ENOENT) for each in (path, other, path + b"x") for mode in (0o600, 0o640)]
    assert found == [*expected, (path, 0o600, 0)]
    pids = [child(chmods(5, path), uid=SOMEBODY) for _ in range(2)]
    assert [len(told(tap, pid, "chmod", path)) for pid in pids] == [1, 1], "another process is another"
    assert (losses(tap) - before)["chmod", "repeated"] >= 12 + 2 + 8


def test_repeats_are_told_again_after_a_while(tap: Tap) -> None:
    """Two that are told are a window apart; none is missing from the sum."""
    window_ns, lasts_ns = 20_000_000, 300_000_000
    follow(tap, chmod=Rules(allow=users(SOMEBODY), repeats_ns=window_ns))
    before = losses(tap)
    reader, writer = os.pipe()

    def body() -> None:
        end, made = time.monotonic_ns() + lasts_ns, 0
        while time.monotonic_ns() < end:
            chmods(1)()
            made += 1
        os.write(writer, b"%d" % made)

    pid = child(body, uid=SOMEBODY)
    made = int(os.read(reader, 99))
    os.close(reader)
    os.close(writer)
    ends = [each["enter_ns"] + each["latency_ns"] for each in told(tap, pid, "chmod")]
    gone = losses(tap) - before
    assert len(ends) + gone["chmod", "repeated"] + gone["chmod", "ring_full"] == made
    assert 2 <= len(ends) <= lasts_ns // window_ns + 1
    assert all(later - earlier > window_ns * 0.9 for earlier, later in pairwise(ends))


def test_a_burst_is_told_and_the_rest_counted(tap: Tap) -> None:
    """One a second, and 37 at once: of 211 in less than a second."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(1, 37)))
    before, start = losses(tap), time.monotonic()
    pid = child(chmods(ALL_OF_THEM), uid=SOMEBODY)
    more = int(time.monotonic() - start)
    count = len(told(tap, pid, "chmod"))
    assert 37 <= count <= 37 + more
    assert losses(tap) - before == {("chmod", "throttled"): ALL_OF_THEM - count}


@pytest.mark.needs("cgroup2")
def test_each_cgroup_has_its_own_share(tap: Tap, own_cgroup: Path) -> None:
    """And each probe. They are told apart in the counts of losses by probe."""
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(1, 11)), open=Rules(allow=users(SOMEBODY), rate=Rate(1, 7)))
    before, start = losses(tap), time.monotonic()

    def both() -> None:
        chmods(101)()
        opens(101)()

    # The share of our own cgroup may be used up by an earlier test.
    pids = child(both, uid=SOMEBODY), child(both, uid=SOMEBODY, cgroup=own_cgroup)
    more = int(time.monotonic() - start)
    counts = {probe: [len(told(tap, pid, probe)) for pid in pids] for probe in ("chmod", "open")}
    assert 11 <= counts["chmod"][1] <= 11 + more
    assert 7 <= counts["open"][1] <= 7 + more
    gone = losses(tap) - before
    assert (gone["chmod", "throttled"], gone["open", "throttled"] + sum(counts["open"])) == (202 - sum(counts["chmod"]), 202)


@pytest.mark.needs("cgroup2")
def test_the_rate_in_the_long_run(tap: Tap, own_cgroup: Path) -> None:
    per_second, burst, lasts_s = 500, 5, 0.5
    follow(tap, chmod=Rules(allow=users(SOMEBODY), rate=Rate(per_second, burst)))
    before = losses(tap)
    reader, writer = os.pipe()

    def body() -> None:
        start, made = time.monotonic(), 0
        while (now := time.monotonic()) < start + lasts_s:
            chmods(1)()
            made += 1
        os.write(writer, b"%d %f" % (made, now - start))

    pid = child(body, uid=SOMEBODY, cgroup=own_cgroup)
    made, lasted = os.read(reader, 99).split()
    os.close(reader)
    os.close(writer)
    count = len(told(tap, pid, "chmod"))
    gone = losses(tap) - before
    assert count + gone["chmod", "throttled"] + gone["chmod", "ring_full"] == int(made)
    assert count <= burst + per_second * float(lasted) + 1
    assert count >= per_second * lasts_s * 0.5, "and not much less than is allowed, on a busy machine"


def test_process_life_is_never_filtered(tap: Tap) -> None:
    """Even if somebody wrote rules for it."""
    strict = Rules(allow=users(SOMEBODY), deny=users(0), outcome=Outcome.FAILED, repeats_ns=HOUR, rate=Rate(1, 1))
    tap.tracing.apply((), {"process": strict, "execve": strict})
    before = losses(tap)
    pids = [subprocess.Popen(["/bin/true"]) for _ in range(7)]
    assert [each.wait() for each in pids] == [0] * 7
    assert [[each["action"] for each in tap.records("process", pid=process.pid)] for process in pids] == [[FORK, EXEC, EXIT]] * 7
    assert tap.records("execve", pid={process.pid for process in pids}) == []
    assert {key for key in losses(tap) - before if key[0] == "process"} == set()


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
    commands = ["in/true", "out/true", "out/link", "in/link", "out/../in/true", "in/../out/true", "in/script", "out/script"]
    inside = ["in/true", "out/link", "out/../in/true", "in/script"]
    listed = Match(paths=frozenset({bytes(tmp_path / "in")}))
    for rules, expected in ((Rules(allow=listed), inside), (Rules(deny=listed), [each for each in commands if each not in inside])):
        follow(tap, execve=rules)
        children = {command: subprocess.Popen([command], executable=f"{tmp_path}/{command}") for command in commands}
        assert [each.wait() for each in children.values()] == [0] * len(commands)
        assert [command for command, each in children.items() if tap.records("execve", pid=each.pid)] == expected


def test_execs_by_outcome_and_name(tap: Tap) -> None:
    """The name is that of the new program."""
    follow(tap, execve=Rules(deny=Match(comms=frozenset({b"true"}))))
    true = subprocess.Popen(["/bin/true"])
    echo = subprocess.Popen(["/bin/echo"], stdout=subprocess.DEVNULL)
    assert (true.wait(), echo.wait()) == (0, 0)
    assert (len(tap.records("execve", pid=true.pid)), len(tap.records("execve", pid=echo.pid))) == (0, 1)
    follow(tap, execve=Rules(outcome=Outcome.FAILED))

    def fail() -> None:
        for _ in range(3):
            _libc.execv(b"/nonexistent/program", None)

    pid = child(fail)
    true = subprocess.Popen(["/bin/true"])
    true.wait()
    assert (len(tap.records("execve", pid=pid)), tap.records("execve", pid=true.pid)) == (3, [])


@pytest.mark.serial  # it counts what happens in a time
def test_rules_that_change_while_events_happen(tap: Tap) -> None:
    """Who is allowed before and after is told without a gap, though lists come and go around it."""
    count = 20011
    follow(tap, chmod=Rules(allow=users(SOMEBODY)))
    before, changes = losses(tap), 0
    pid = os.fork()
    if not pid:
        os.setresuid(SOMEBODY, SOMEBODY, SOMEBODY)
        chmods(count)()
        os._exit(0)
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        follow(tap, chmod=Rules(allow=users(SOMEBODY, *range(10, 10 + changes % 7))), open=Rules(deny=users(SOMEBODY)))
        changes += 1
    assert changes > 5
    assert len(told(tap, pid, "chmod")) + (losses(tap) - before)["chmod", "ring_full"] == count


def test_lists_that_are_full(tap: Tap) -> None:
    """KernelError; the next rules have all the room there is."""
    with pytest.raises(KernelError):
        follow(tap, open=Rules(deny=users(*range(100_000, 110_000))))
    follow(tap, open=Rules(deny=users(SOMEBODY, *range(200_000, 200_000 + MOST["uid"] - 1))))
    assert (len(told(tap, child(opens(3), uid=SOMEBODY))), len(told(tap, child(opens(3))))) == (0, 3)
    follow(tap, open=Rules())
    assert [tap.tracing.maps[name].all_keys() for name in MAPS.values()] == [[]] * len(MAPS)


def test_a_full_list_in_place_of_another(tap: Tap) -> None:
    """As many as docs/FILTERS.md says that there can be, before and after."""
    follow(tap, open=Rules(deny=users(SOMEBODY, *range(300_000, 300_000 + MOST["uid"] - 1))))
    follow(tap, open=Rules(deny=users(*range(400_000, 400_000 + MOST["uid"]))))
    assert len(told(tap, child(opens(3), uid=SOMEBODY))) == 3
    assert len(tap.tracing.maps[MAPS["uid"]].all_keys()) == MOST["uid"]


def test_every_probe_follows_rules_on_who(tap: Tap) -> None:
    """Denied to everybody, nothing is told of any, whatever happens on the machine meanwhile; process life excepted."""
    nobody = Rules(allow=users(2**32 - 2))
    follow(tap, **{probe: nobody for probe in PROBES if probe != "process" and not getattr(KINDS[probe], "account", False)})

    def body() -> None:
        opens(3)()
        chmods(3)()
        connects("127.0.0.1")()
        _libc.ptrace(16, 2**22 + 5, 0, 0)
        _libc.mount(b"a", b"/nonexistent", b"tmpfs", 0, None)
        _libc.umount2(b"/nonexistent", 0)
        _libc.execv(b"/nonexistent/program", None)
        _libc.rename(b"/nonexistent/a", b"/nonexistent/b")
        _libc.unlink(b"/nonexistent/a")
        _libc.mkdir(b"/nonexistent/a", 0)

    pid = child(body)
    assert {probe: tap.records(probe, pid=pid) for probe in PROBES if probe != "process" and tap.records(probe, pid=pid)} == {}
    assert [each["action"] for each in tap.records("process", pid=pid)] == [FORK, EXIT]
