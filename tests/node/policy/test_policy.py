"""The configuration file: what it comes to, and that whatever is wrong with it is told in one line."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infrasight.errors import SettingsError
from infrasight.kernel.rules import Match, Outcome, Rate, Rules
from infrasight.node.policy import values
from infrasight.node.policy.file import load, policy_for
from infrasight.node.policy.policy import KEYS, MOST, Policy, keys_for, keys_of
from infrasight.node.redaction.redactor import Redaction
from infrasight.schema import KINDS, PROBES, Column, Kind, Type
from infrasight.schema.kinds import ALWAYS

ROOT = Path(__file__).parents[3]
PASSWD = b"root:x:0:0::/:\nwww-data:x:33:33::/:\nwww-data:x:34:34::/:\nb\xf6x:x:35:35::/:\nminus:x:-1:\nhuge:x:4294967295:\nbroken\n"

Loader = Callable[[str | bytes], Policy]


@pytest.fixture
def cgroups(tmp_path: Path) -> Path:
    """A directory that stands for the cgroup v2 mount, with a space in its name."""
    top = tmp_path / "the unified"
    (top / "system.slice/nginx.service").mkdir(parents=True)
    (top / "cgroup.procs").write_text("")
    return top


@pytest.fixture
def told(tmp_path: Path, cgroups: Path, monkeypatch: pytest.MonkeyPatch) -> Loader:
    """What a file `node.toml` of this content comes to, on a machine with these users and cgroups."""
    passwd, mounts = tmp_path / "passwd", tmp_path / "mounts"
    passwd.write_bytes(PASSWD)
    mounts.write_text("tmpfs /run tmpfs rw 0 0\n\ncgroup2 {} cgroup2 rw 0 0\n".format(str(cgroups).replace(" ", r"\040")))
    monkeypatch.chdir(tmp_path)

    def read(content: str | bytes) -> Policy:
        Path("node.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
        return load(Path("node.toml"), passwd=passwd, mounts=mounts)

    return read


def reason(told: Loader, content: str | bytes) -> str:
    """The one line that a bad file ends with, without the file's name."""
    with pytest.raises(SettingsError) as refused:
        told(content)
    line = str(refused.value)
    assert line.isprintable()
    assert line.startswith("node.toml: ")
    return line.removeprefix("node.toml: ")


def test_an_empty_file_changes_nothing(told: Loader) -> None:
    assert told("") == told("[allow]\n[deny]\n[rate]\n[repeats]\n[probe.open]\n") == Policy.default()
    assert Policy.default() == Policy(PROBES, {name: Rules() for name in PROBES})


def test_everything_at_once(told: Loader, cgroups: Path) -> None:
    policy = told("""
        probes = ["open", "execve"]
        [allow]
        uid = [1000, "www-data", "2000-2002", "7"]
        comm = ["nginx", "fünfzehn bytes"]
        cgroup = ["/system.slice/nginx.service", 1234]
        path = ["/etc", "/home//x/./y/", "/"]
        address = ["::1", "10.0.0.0/8", "192.0.2.7"]
        outcome = "failed"
        [deny]
        uid = [0]
        [repeats]
        window = "10s"
        [rate]
        per_second = 1000
        burst = 5000
    """)
    assert policy.probes == ("execve", "open", "process")
    assert policy.rules["connect"] == Rules(
        allow=Match(
            uids=frozenset({1000, 33, 2000, 2001, 2002, 7}),
            comms=frozenset({b"nginx", "fünfzehn bytes".encode()}),
            cgroups=frozenset({1234, (cgroups / "system.slice/nginx.service").stat().st_ino}),
            paths=frozenset({b"/etc", b"/home/x/y", b"/"}),
            networks=(ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("::1")),
        ),
        deny=Match(uids=frozenset({0})),
        outcome=Outcome.FAILED,
        repeats_ns=10 * 10**9,
        rate=Rate(1000, 5000),
    )
    assert set(policy.rules) == set(PROBES)


def test_a_general_key_applies_where_it_makes_sense(told: Loader) -> None:
    rules = told('allow = {path = ["/etc"], address = ["::1"], outcome = "succeeded"}\nrepeats.window = "1s"').rules
    assert rules["open"].allow == Match(paths=frozenset({b"/etc"}))
    assert rules["ptrace"] == Rules(outcome=Outcome.SUCCEEDED, repeats_ns=10**9)
    assert rules["connect"].allow.networks == (ip_network("::1"),)
    assert rules["process"] == Rules()


def test_a_table_of_a_probe_replaces_the_general_one(told: Loader) -> None:
    rules = told("""
        allow = {uid = [1], outcome = "failed"}
        deny.comm = ["a"]
        rate.per_second = 7
        [probe.open]
        allow.path = ["/etc"]
        deny.path = ["/proc"]
        [probe.execve]
        rate = {}
        repeats.window = "2m"
    """).rules
    general = Rules(Match(uids=frozenset({1})), Match(comms=frozenset({b"a"})), Outcome.FAILED, rate=Rate(7, 7))
    assert rules["mount"] == general
    assert rules["execve"] == dataclasses.replace(general, rate=None, repeats_ns=120 * 10**9)
    assert rules["open"] == Rules(Match(paths=frozenset({b"/etc"})), Match(paths=frozenset({b"/proc"})), rate=Rate(7, 7))


def test_the_flag_wins_over_the_file(told: Loader) -> None:
    told('probes = ["open"]\ndeny.uid = [1]')
    policy = policy_for(Path("node.toml"), ())
    assert policy.probes == ("open", "process")
    assert policy_for(Path("node.toml"), ("connect", "process")) == Policy(("connect", "process"), policy.rules)
    assert policy_for(None, ("chmod",)) == Policy.default(("chmod",))
    assert policy_for(None) == Policy.default(PROBES)


def test_a_policy_stays_as_it_is(told: Loader) -> None:
    with pytest.raises(TypeError):
        told("").rules["open"] = Rules()  # type: ignore[index]  # that it cannot be done is what is tested


def test_a_kind_that_the_node_makes_is_no_probe(told: Loader) -> None:
    assert reason(told, "[probe.loss]").startswith("probe.loss: no such probe")


def test_keys_follow_the_columns() -> None:
    def kind(*columns: tuple[str, Type]) -> Kind:
        return Kind("new", 99, "", tuple(Column(name, type, number, "") for number, (name, type) in enumerate(columns)))

    assert keys_for(kind(("ts", Type.TIME), ("uid", Type.U32), ("cgroup_id", Type.U64))) == ("uid", "cgroup")
    assert keys_for(kind(("new_path", Type.TEXT), ("ret", Type.I64))) == ("path", "outcome")
    assert keys_for(kind(("target", Type.U32), ("saddr", Type.NAME))) == ("address",)
    assert keys_of("ptrace") == ("uid", "comm", "cgroup", "outcome")
    assert keys_for(KINDS[ALWAYS]) == ()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('prob = ["open"]', "prob: no such key; did you mean 'probe'?"),
        ("xyz = 1", "xyz: no such key, only probes, probe, redaction, allow, deny, repeats, rate"),
        ('"a\\u001b\\nb" = 1', "'a\\x1b\\nb': no such key, only probes, probe, redaction, allow, deny, repeats, rate"),
        ("[allow]\nuids = [1]", "allow.uids: no such key; did you mean 'uid'?"),
        ('[deny]\noutcome = "failed"', "deny.outcome: belongs in an allow table"),
        ("deny = 3", "deny: a table is wanted, not a whole number"),
        ("[[deny]]", "deny: a table is wanted, not a list"),
        ("probe = true", "probe: a table is wanted, not true or false"),
        ("probe.open = 2024-01-01", "probe.open: a table is wanted, not a date or time"),
        ("[probe.opne]", "probe.opne: no such probe; did you mean 'open'?"),
        ("[probe.process]", "probe.process: process life is always traced, whole"),
        ("probe.open.allow.outcome = 1", "probe.open.allow.outcome: 'failed' or 'succeeded' is wanted, not 1"),
        ('probe.open.window = "1s"', "probe.open.window: no such key, only allow, deny, repeats, rate, all"),
        ('probe.ptrace.deny.path = ["/"]', "probe.ptrace.deny.path: nothing that this probe sees has one"),
        ('probe.open.allow.address = ["::"]', "probe.open.allow.address: nothing that this probe sees has one"),
        ('probes = ["opne"]', "probes: 'opne': no such probe; did you mean 'open'?"),
        ('probes = "open"', "probes: a list is wanted, not a string"),
        ('probes = ["open", "open"]', "probes: 'open' is there twice"),
        ("probes = []", "probes: the list is empty; leave it out"),
        ("probes = [1]", "probes: a probe's name is wanted, not a whole number"),
    ],
)
def test_tables_and_keys(told: Loader, content: str, wrong: str) -> None:
    assert reason(told, content) == wrong


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("uid", "'bob'", "no user is called 'bob'"),
        ("uid", "'minus'", "no user is called 'minus'"),
        ("uid", "'huge'", "no user is called 'huge'"),
        ("uid", "''", "a user is wanted, not ''"),
        ("uid", "-1", "-1 is not between 0 and 4294967294"),
        ("uid", "4294967295", "4294967295 is not between 0 and 4294967294"),
        ("uid", "1.0", "a whole number is wanted, not a number with a point"),
        ("uid", "true", "a whole number is wanted, not true or false"),
        ("uid", "'5-4'", "'5-4' is no range of 1 to 4096 users"),
        ("uid", "'0-4096'", "'0-4096' is no range of 1 to 4096 users"),
        ("uid", "'0-4095'", "these are more than 1024, and there is no room for them"),
        ("uid", "33, 33", "33 is there twice"),
        ("comm", "1", "a thread's name is wanted, not a whole number"),
        ("comm", "'sixteen bytes ...'", "'sixteen bytes ...' is longer than 15 bytes, and a thread's name never is"),
        ("comm", '"a\\u0000"', "a thread's name is wanted, not 'a\\x00'"),
        ("cgroup", "0", "0 is not between 1 and 18446744073709551615"),
        ("cgroup", "'system.slice'", "'system.slice' does not begin with /"),
        ("cgroup", "'/../x'", "'/../x' has a '..', which only the file system could resolve"),
        ("cgroup", "'/cgroup.procs'", "'/cgroup.procs' is a file and no cgroup"),
        ("path", "'etc'", "'etc' does not begin with /"),
        ("path", "'/a/../b'", "'/a/../b' has a '..', which only the file system could resolve"),
        ("path", "['/a']", "a path is wanted, not a list"),
        ("path", "''", "a path is wanted, not ''"),
        ("address", "'10.0.0.1/8'", "'10.0.0.1/8' has bits set behind its prefix: the network is '10.0.0.0/8'"),
        ("address", "'fe80::1%eth0'", "'fe80::1%eth0' is no IPv4 or IPv6 address or network"),
        ("address", "'10.1'", "'10.1' is no IPv4 or IPv6 address or network"),
        ("address", "1", "an address or a network is wanted, not a whole number"),
    ],
)
def test_values(told: Loader, key: str, value: str, wrong: str) -> None:
    assert reason(told, f"deny.{key} = [{value}]") == f"deny.{key}: {wrong}"
    assert reason(told, f"probe.connect.allow.{key} = [{value}]") == f"probe.connect.allow.{key}: {wrong}"


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('repeats.window = "10 s"', "repeats.window: '10 s' is no time such as '10s' (units: ms, s, m, h)"),
        ("repeats.window = 10", "repeats.window: a time such as '10s' is wanted, not a whole number"),
        ('repeats.window = "3601s"', "repeats.window: '3601s' is longer than an hour"),
        ("repeats.windows = 10", "repeats.windows: no such key; did you mean 'window'?"),
        ("rate.per_second = 0", "rate.per_second: 0 is not between 1 and 10000000"),
        ("rate.per_second = 1.5", "rate.per_second: a whole number is wanted, not a number with a point"),
        ("rate.burst = 5", "rate.burst: makes no sense without per_second"),
        ("rate = {per_second = 1, burst = true}", "rate.burst: a whole number is wanted, not true or false"),
        ("probe.open.rate.burst = 5", "probe.open.rate.burst: makes no sense without per_second"),
        ("allow.outcome = ['failed']", "allow.outcome: 'failed' or 'succeeded' is wanted, not ['failed']"),
    ],
)
def test_repeats_rate_and_outcome(told: Loader, content: str, wrong: str) -> None:
    assert reason(told, content) == wrong


def test_redaction(told: Loader) -> None:
    assert told("[redaction]").redaction == told("[redaction]\nenabled = true").redaction == Redaction()
    assert told("redaction.enabled = false").redaction == Redaction(enabled=False)
    asked = told("""redaction = {patterns = ['corp-[0-9]+', 'x=(?P<secret>.+)'], keep = ['--token=public']}""").redaction
    assert asked == Redaction(patterns=("(?P<secret>corp-[0-9]+)", "x=(?P<secret>.+)"), keep=("--token=public",))


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("pattern = ['a']", "redaction.pattern: no such key; did you mean 'patterns'?"),
        ("enabled = 1", "redaction.enabled: true or false is wanted, not 1"),
        ("patterns = 'a'", "redaction.patterns: a list is wanted, not a string"),
        ("patterns = ['']", "redaction.patterns: a regular expression is wanted, not ''"),
        ("patterns = ['a', 'a']", "redaction.patterns: 'a' is there twice"),
        ("patterns = ['[a']", "redaction.patterns: '[a': missing ]: [a)"),
        ("patterns = ['(?!a)']", "redaction.patterns: '(?!a)': invalid perl operator: (?!"),
        ("patterns = ['(a)']", "redaction.patterns: '(a)': a group is to be (?:...), or (?P<secret>...) for what is masked"),
        ("patterns = ['a*']", "redaction.patterns: 'a*': it matches nothing at all, and so everywhere"),
        ("keep = ['(a']", "redaction.keep: '(a': missing ): (a"),
        (f"patterns = {[str(number) for number in range(65)]}", "redaction.patterns: these are more than 64"),
        ("enabled = false\nkeep = ['a']", "redaction.enabled: false leaves nothing to the patterns that are given beside it"),
    ],
)
def test_redaction_that_cannot_be_followed(told: Loader, content: str, wrong: str) -> None:
    assert reason(told, f"[redaction]\n{content}") == wrong


@pytest.mark.parametrize(("written", "ns"), [("0s", 0), ("250ms", 250 * 10**6), ("90s", 90 * 10**9), ("60m", 3600 * 10**9), ("1h", 3600 * 10**9)])
def test_times(written: str, ns: int) -> None:
    assert values.window(written) == ns


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("[deny]\nuid", "Expected '=' after a key in a key/value pair (at line 2, the end)"),
        ("\n\nuid [1]\n", "Expected '=' after a key in a key/value pair (at line 3, column 5)"),
        ("probes = ['open']\nprobes = ['open']\n\n", "Cannot overwrite a value (at line 2, column 18)"),
        ("[deny]\n[deny]\n", "Cannot declare ('deny',) twice (at line 2, column 6)"),
        (b"[deny]\n\ncomm = ['\xff']", "not UTF-8 (at line 3)"),
        ("a = " + "[" * 5000, "nested too deeply"),
        ("#" * (1 << 20) + "\n", "is larger than 1 MiB"),
    ],
)
def test_what_is_no_toml(told: Loader, content: str | bytes, wrong: str) -> None:
    assert reason(told, content) == wrong


def test_a_number_of_thousands_of_digits(told: Loader) -> None:
    assert "digits" in reason(told, "rate.per_second = " + "9" * 5000)
    assert "rate.per_second: " in reason(told, "rate.per_second = 0x" + "f" * 9000)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name, wrong in {
        "missing": "cannot be read: No such file or directory",
        ".": "is not an ordinary file",
        "fifo": "is not an ordinary file",
    }.items():
        with pytest.raises(SettingsError) as refused:
            load(tmp_path / name)
        assert str(refused.value) == f"{tmp_path / name}: {wrong}"


def test_cgroups_that_do_not_exist(told: Loader, cgroups: Path) -> None:
    wrong = reason(told, 'deny.cgroup = ["/nginx.service"]')
    assert wrong == f"deny.cgroup: no cgroup '/nginx.service' below {cgroups}: No such file or directory"
    assert "File name too long" in reason(told, f'deny.cgroup = ["/{"x" * 300}"]')
    assert "\\n" in reason(told, 'deny.cgroup = ["/a\\nb"]')


def test_a_machine_without_what_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n")
    host = values.Host(tmp_path / "passwd", tmp_path / "mounts")
    with pytest.raises(ValueError, match="no cgroup hierarchy is mounted here"):
        host.cgroup("/")
    with pytest.raises(ValueError, match=r"cannot read .*passwd: No such file"):
        host.uids("root")
    assert (host.cgroup(5), list(host.uids(5))) == (5, [5])


def test_a_machine_with_v1_only(tmp_path: Path, cgroups: Path) -> None:
    """The pids controller's hierarchy is what events tell cgroups of."""
    (tmp_path / "mounts").write_text(f"cgroup {str(cgroups).replace(' ', chr(92) + '040')} cgroup rw,pids 0 0\n")
    host = values.Host(tmp_path / "passwd", tmp_path / "mounts")
    assert host.cgroup("/system.slice") & 2**48 - 1 == (cgroups / "system.slice").stat().st_ino


@pytest.mark.needs("cgroup2")
def test_a_real_cgroup(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text('deny.cgroup = ["/"]\ndeny.uid = ["root"]')
    mount = next(fields[1] for line in Path("/proc/self/mounts").read_text().splitlines() if (fields := line.split())[2] == "cgroup2")
    assert load(tmp_path / "node.toml").rules["open"].deny == Match(uids=frozenset({0}), cgroups=frozenset({os.stat(mount).st_ino}))


def test_longest_names_and_paths() -> None:
    assert values.comm("x" * 15) == b"x" * 15
    assert values.path("/a" * 32) == b"/a" * 32
    with pytest.raises(ValueError, match="has 33 components, and 32 is the most"):
        values.path("/a" * 33)
    assert len(values.path("/" + "a" * 4094)) == 4095
    with pytest.raises(ValueError, match=r"aaa\.\.\. is longer than 4095 bytes"):
        values.path("/" + "a" * 4095)


FULL = {
    "uid": lambda number: number,
    "comm": lambda number: f"c{number}",
    "cgroup": lambda number: number + 1,
    "path": lambda number: f"/{number}",
    "address": lambda number: f"10.0.{number >> 8}.{number & 255}",
}


@pytest.mark.parametrize("key", MOST)
def test_there_is_room_for_so_many_in_all_tables_together(told: Loader, key: str) -> None:
    half = MOST[key] // 2
    first, second, more = ([FULL[key](number) for number in span] for span in (range(half), range(half, 2 * half), [2 * half]))
    general = f"allow.{key} = {first}\ndeny.{key} = {first}\nprobe.connect.allow.{key} = {first}\n"
    told(f"{general}probe.connect.deny.{key} = {second}")
    wrong = f"{key}: {2 * half + 1} different values in all tables together, and there is room for {2 * half}"
    assert reason(told, f"{general}probe.connect.deny.{key} = {second + more}") == wrong


PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=9).filter(
    lambda part: part not in (".", "..")
)


@given(st.lists(PARTS, max_size=32), st.data())
def test_a_path_comes_out_clean(parts: list[str], data: st.DataObject) -> None:
    written = "".join(data.draw(st.sampled_from(["/", "//", "/./"])) + part for part in parts) + data.draw(st.sampled_from(["/", "//", "/."]))
    assert values.path(written) == b"/" + b"/".join(part.encode() for part in parts)


ANYTHING = st.recursive(
    st.sampled_from(["1", "-1", "true", "0.5", "nan", "2024-01-01", "'/'", "'open'", "'failed'", "'1-3'", "'::1'", "'10s'", "''", "'\\u0007'"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]") | inner.map(lambda item: f"{{uid = {item}}}"),
    max_leaves=4,
)
PLACES = st.lists(
    st.sampled_from(["probe", "open", "process", "probes", "allow", "deny", "rate", "window", "burst", "per_second", *KEYS]), min_size=1, max_size=4
)


@given(st.dictionaries(PLACES.map(".".join), ANYTHING, max_size=4))
@settings(max_examples=300)
def test_whatever_is_in_it_there_is_a_policy_or_one_line(tmp_path_factory: pytest.TempPathFactory, lines: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / "anything.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
    line = ""
    try:
        assert set(load(path).rules) == set(PROBES)
    except SettingsError as error:
        line = str(error)
    assert not line or line.startswith(f"{path}: ")
    assert line.isprintable()


def test_the_example_changes_nothing_as_it_stands(told: Loader) -> None:
    assert told((ROOT / "deploy/node.toml").read_text()) == Policy.default()


def test_the_example_has_every_key_and_all_of_it_works(told: Loader) -> None:
    text = re.sub(r"^#(?=[a-z])", "", (ROOT / "deploy/node.toml").read_text(), flags=re.MULTILINE)
    policy = told(text)
    rules = policy.rules
    assert len(policy.redaction.patterns) == len(policy.redaction.keep) == 2
    assert rules["connect"].allow.networks
    assert rules["mount"].rate == Rate(1000, 5000)
    assert rules["open"].rate == Rate(5000, 5000)
    others = {"probes", "window", "per_second", "burst", "all", "enabled", "patterns", "keep"}
    assert set(re.findall(r"^(\w+) = ", text, re.MULTILINE)) == {*KEYS, *others}


def test_the_page_tells_which_keys_make_sense() -> None:
    page = (ROOT / "docs/FILTERS.md").read_text()
    told = {name: tuple(re.findall(r"`(\w+)`", keys)) for name, keys in re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|$", page, re.MULTILINE)}
    assert told == {name: keys for name in PROBES if (keys := keys_of(name))}


def test_the_page_s_example_and_limits(told: Loader) -> None:
    page = (ROOT / "docs/FILTERS.md").read_text()
    assert told("".join(line[4:] + "\n" for line in page.split("## ")[0].splitlines() if line.startswith("    "))).rules["mount"].rate == Rate(
        1000, 5000
    )
    for key, most in MOST.items():
        assert f"`{key}`" in page
        assert str(most) in page
