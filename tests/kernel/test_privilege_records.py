"""Records of ids, capabilities and namespaces that change, and of what reaches into the kernel, against what their maker and /proc know."""

import ctypes
import errno
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infrasight.kernel.syscalls import number
from tests.kernel.calls import call, me
from tests.kernel.tap import Interval, Tap
from tests.kernel.test_memory_records import fields, made

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root", "btf", "tracefs", "bpf", "bcc")]
SAME = 2**32 - 1
IN_A_CHILD = """
import ctypes, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
said = []

def status():
    lines = dict(line.split(":", 1) for line in open("/proc/thread-self/status").read().splitlines())
    ids = {name: [int(each) for each in lines[name].split()] for name in ("Uid", "Gid")}
    return ids | {name: int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapInh")}

def call(number, *arguments, say=True, **more):
    before = status() if say else None
    ret = libc.syscall(number, *(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    ret = ret if ret >= 0 else -ctypes.get_errno()
    said.append(more | {"ret": ret, "before": before, "after": status() if say else None})
    return ret

exec(sys.argv[1])
print(json.dumps(said))
"""


def in_a_child(code: str, *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """Runs `code`, which makes calls with `call`: the process id, and what it said of each."""
    child = subprocess.Popen([sys.executable, "-S", "-c", IN_A_CHILD, code, *map(str, arguments)], stdout=subprocess.PIPE)
    out, _ = child.communicate()
    assert child.returncode == 0
    return child.pid, json.loads(out)


SETIDS = [
    ("setgid", (5,)),
    ("setregid", (SAME, 6)),
    ("setresgid", (7, 8, 9)),
    ("setfsgid", (10,)),
    ("setfsuid", (2**32 - 2,)),
    ("setfsuid", (SAME,)),
    ("setresuid", (SAME, SAME, SAME)),
    ("setuid", (SAME,)),
    ("setresuid", (1000, 1001, 0)),
    ("setreuid", (0, 1001)),
    ("setreuid", (SAME, 1000)),
    ("setresgid", (0, 0, 0)),
    ("setuid", (0,)),
    ("setgid", (SAME,)),
    ("setuid", (4_000_000_000,)),
    ("setresuid", (0, 0, 0)),
    ("setgid", (0,)),
]
"""Of which many fail; they begin as root."""
PLACES = {"setuid": [1], "setgid": [1], "setfsuid": [3], "setfsgid": [3], "setreuid": [0, 1], "setregid": [0, 1]}


def test_ids_against_proc(tap: Tap) -> None:
    code = "\n".join(f"call({number(name)}, *{asked})" for name, asked in SETIDS)
    pid, said = in_a_child(code)
    records = tap.records("setid", pid=pid)
    assert len(records) == len(SETIDS) == 17
    for record, (name, asked), known in zip(records, SETIDS, said, strict=True):
        expected = [SAME] * 4
        for place, value in zip(PLACES.get(name, [0, 1, 2]), asked, strict=True):
            expected[place] = value
        ids = "Uid" if "uid" in name else "Gid"
        assert [name, *expected, *known["before"][ids][:3], known["ret"]] == [
            ["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid"][record["call"] - 1],
            *(record[each] for each in ["real", "effective", "saved", "filesystem", "real_before", "effective_before", "saved_before", "ret"]),
        ]
        after = known["after"]
        assert (record["uid"], record["euid"], record["gid"]) == (*after["Uid"][:2], after["Gid"][0])
    returned = [each["ret"] for each in said]
    assert -errno.EPERM in returned
    assert -errno.EINVAL in returned


V1, V2, V3, WRONG = 0x19980330, 0x20071026, 0x20080522, 0x12345678
NET_ADMIN, SYS_TIME, BPF = 1 << 12, 1 << 25, 1 << 39
CAPSETS = [
    (V3, 0, NET_ADMIN | BPF, NET_ADMIN | BPF | SYS_TIME, SYS_TIME),
    (V2, 0, BPF, NET_ADMIN | BPF | SYS_TIME, 0),
    (V3, 0, BPF | 1, BPF, 0),
    (V1, 0, NET_ADMIN, NET_ADMIN, NET_ADMIN),
    (V3, 1, 0, 0, 0),
    (V3, 0, 2**41 - 1, 2**41 - 1, 0),
    (V3, 0, 0, 0, 0),
]
"""Version, process, effective, permitted, inheritable; the third, the fifth and the sixth fail."""


def test_capabilities_against_proc(tap: Tap) -> None:
    code = "\n".join(
        f"call({number('capset')}, struct.pack('Ii', {version}, {target}), struct.pack('6I', "
        + ", ".join(f"{word >> shift & 0xFFFFFFFF}" for shift in (0, 32) for word in words)
        + "))"
        for version, target, *words in CAPSETS
    )
    pid, said = in_a_child(code)
    records = tap.records("capset", pid=pid)
    assert fields(records, "target_pid effective permitted inheritable") == [tuple(asked) for _, *asked in CAPSETS]
    assert [each["ret"] for each in records] == [each["ret"] for each in said]
    assert [each["ret"] for each in said] == [0, 0, -errno.EPERM, 0, -errno.EPERM, -errno.EPERM, 0]
    assert [each["cap_effective"] for each in records] == [each["after"]["CapEff"] for each in said]
    for record, known in zip(records, said, strict=True):
        if not known["ret"]:
            assert [record[each] for each in ("effective", "permitted", "inheritable")] == [
                known["after"][each] for each in ("CapEff", "CapPrm", "CapInh")
            ]


def test_capabilities_that_cannot_be_read(tap: Tap) -> None:
    header, words = struct.pack("Ii", V3, 0), struct.pack("6I", *[1] * 6)
    with Interval() as interval:
        returned = [call("capset", header, 1), call("capset", 1, words), call("capset", struct.pack("Ii", WRONG, 7), words)]
    assert fields(made(tap, "capset", interval), "ret target_pid permitted") == [
        (returned[0], 0, 0),
        (returned[1], 0, 1 << 32 | 1),
        (returned[2], 7, 1 << 32 | 1),
    ]
    assert returned == [-errno.EFAULT, -errno.EFAULT, -errno.EINVAL]


NAMESPACES = {"mnt": 0x20000, "uts": 0x4000000, "ipc": 0x8000000, "net": 0x40000000, "cgroup": 0x2000000, "pid": 0x20000000, "time": 0x80}
JOINING = """
names = json.loads(sys.argv[2])
def namespace(name, fd, flags, **more):
    stat = os.fstat(fd) if fd != 999 else None
    call(SETNS, fd, flags, fd=fd, flags=flags, inode=stat and stat.st_ino, name=name, say=False, **more)
fds = {name: os.open("/proc/self/ns/" + name, os.O_RDONLY) for name in names}
call(UNSHARE, 0x20000 | 0x4000000 | 0x40000000, say=False)
call(UNSHARE, 0x200, say=False)
call(UNSHARE, 1, say=False)
call(UNSHARE, 2**40, say=False)
for name, flag in names.items():
    namespace(name, fds[name], flag if name in ("uts", "ipc") else 0)
namespace("uts", fds["uts"], names["net"])
call(UNSHARE, 0x20000, say=False)
assert libc.mount(None, b"/", None, 0x4000 | 0x40000, None) == 0
assert libc.mount(b"/proc/self/ns/net", os.fsencode(sys.argv[3]), None, 0x1000, None) == 0
namespace("net", os.open(sys.argv[3], os.O_RDONLY), 0, file=sys.argv[3])
namespace("", 999, 0)
namespace("", os.open("/dev/null", os.O_RDONLY), 0)
namespace("pidfd", os.pidfd_open(os.getppid()), names["uts"] | names["net"])
"""


def test_namespaces(tap: Tap, tmp_path: Path) -> None:
    mounted = tmp_path / "blue"
    mounted.touch()
    code = JOINING.replace("SETNS", str(number("setns"))).replace("UNSHARE", str(number("unshare")))
    pid, said = in_a_child(code, json.dumps(NAMESPACES), mounted)
    joined = [each for each in said if "fd" in each]
    made_new = [each["ret"] for each in said if "fd" not in each]
    assert fields(tap.records("unshare", pid=pid), "flags ret") == list(zip((0x44020000, 0x200, 1, 2**40, 0x20000), made_new, strict=True))
    assert made_new == [0, 0, -errno.EINVAL, -errno.EINVAL, 0]
    records = tap.records("setns", pid=pid)
    assert len(records) == 12
    for record, known in zip(records, joined, strict=True):
        name = known["name"]
        of_proc = name in NAMESPACES
        assert (record["ret"], record["fd"], record["nstype"]) == (known["ret"], known["fd"], known["flags"])
        assert (record["type"], record["inode"]) == ((NAMESPACES[name], known["inode"]) if of_proc else (0, 0))
        assert record["file_placed"] == os.fsencode(known.get("file", "")) or not of_proc
        assert record["target_pid"] == (os.getpid() if name == "pidfd" else 0)
    returned = [each["ret"] for each in joined]
    assert returned[:3] == [0, 0, 0]
    assert returned[7:] == [-errno.EINVAL, 0, -errno.EBADF, -errno.EINVAL, 0]


def fdinfo(fd: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())


def test_programs_and_maps(tap: Tap) -> None:
    instructions = ctypes.create_string_buffer(struct.pack("<QQ", 0xB7, 0x95), 16)
    licence = ctypes.create_string_buffer(b"GPL")
    load = struct.pack("<IIQQIIQII16s", 1, 2, ctypes.addressof(instructions), ctypes.addressof(licence), 0, 0, 0, 0, 0, b"returns_0")
    hashed, array = struct.pack("<7I16s", 1, 4, 8, 16, 0, 0, 0, b"fifteen_letters"), struct.pack("<5I", 2, 4, 8, 16, 0)
    wrong = struct.pack("<7I16s", 77, 4, 8, 16, 0, 0, 0, b"bad name!")
    asked = [(0, hashed), (0, array), (0, wrong), (5, load), (5, load[:48]), (1, hashed), (99, array)]
    with Interval() as interval:
        returned = [call("bpf", command, ctypes.create_string_buffer(attr, 128), len(attr)) for command, attr in asked]
    records = made(tap, "bpf", interval)
    assert fields(records, "command prog_type map_type name") == [
        (0, 0, 1, b"fifteen_letters"),
        (0, 0, 2, b""),
        (0, 0, 77, b"bad name!"),
        (5, 1, 0, b"returns_0"),
        (5, 1, 0, b""),
        (1, 0, 0, b""),
        (99, 0, 0, b""),
    ]
    assert [each["ret"] for each in records] == returned
    assert [fdinfo(fd).get("map_type") or fdinfo(fd)["prog_type"] for fd in (*returned[:2], *returned[3:5])] == ["1", "2", "1", "1"]
    assert returned[2] == returned[6] == -errno.EINVAL
    for fd in returned:
        if fd >= 0:
            os.close(fd)


def test_rings(tap: Tap) -> None:
    params = [ctypes.create_string_buffer(struct.pack("10I", 0, 0, flags, *[0] * 7), 120) for flags in (0, 1 << 4, 1 << 31)]
    with Interval() as interval:
        returned = [call("io_uring_setup", 5, params[0]), call("io_uring_setup", 8, params[1]), call("io_uring_setup", 9, params[2])]
        returned += [call("io_uring_setup", 0, params[0]), call("io_uring_setup", 1, 1)]
    features = struct.unpack_from("10I", params[0])[5]
    assert features
    assert fields(made(tap, "io_uring_setup", interval), "ret entries flags features") == [
        (returned[0], 5, 0, features),
        (returned[1], 8, 16, features),
        (returned[2], 9, 1 << 31, 0),
        (returned[3], 0, 0, 0),
        (returned[4], 1, 0, 0),
    ]
    assert returned[2:] == [-errno.EINVAL, -errno.EINVAL, -errno.EFAULT]
    assert os.readlink(f"/proc/self/fd/{returned[0]}") == "anon_inode:[io_uring]"
    os.close(returned[0])
    os.close(returned[1])


def test_modules_that_fail_to_load(tap: Tap, tmp_path: Path) -> None:
    """Garbage, so that they fail on every kernel."""
    file = os.fsencode(tmp_path) + b"/\xff\n.ko"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"garbage")
    long = b"x=" + b"y" * 3000
    with Interval() as interval:
        returned = [
            call("init_module", b"garbage", 7, b"a=1 \x1b[31m"),
            call("init_module", b"garbage", 7, 1),
            call("finit_module", descriptor, b"b=2", 3),
            call("finit_module", descriptor, long, 0),
            call("finit_module", 9999, b"", 0),
            call("delete_module", b"no_such_module", os.O_NONBLOCK),
            call("delete_module", b"n" * 100, os.O_TRUNC),
        ]
    records = made(tap, "module", interval)
    assert fields(records, "call ret fd length flags name parameters file_placed") == [
        (0, returned[0], -1, 7, 0, b"", b"a=1 \x1b[31m", b""),
        (0, returned[1], -1, 7, 0, b"", b"", b""),
        (1, returned[2], descriptor, 0, 3, b"", b"b=2", file),
        (1, returned[3], descriptor, 0, 0, b"", long, file),
        (1, returned[4], 9999, 0, 0, b"", b"", b""),
        (2, returned[5], -1, 0, os.O_NONBLOCK, b"no_such_module", b"", b""),
        (2, returned[6], -1, 0, os.O_TRUNC, b"n" * 63, b"", b""),
    ]
    assert all(ret < 0 for ret in returned)
    known = me()
    assert all(record[name] == known[name] for record in records for name in known)
    os.close(descriptor)


@pytest.mark.needs("gcc", "compat")
def test_32_bit_calls(tap: Tap, int80: Callable[..., tuple[int, int]]) -> None:
    pid, ret = int80(208, SAME, 1000, 0)
    record = tap.one("setid", pid=pid)
    assert fields([record], "ret call real effective saved uid euid") == [(ret, 5, SAME, 1000, 0, 0, 1000)]
    pid, ret = int80(185, f"#{V3},0", "#0,0,0,0,0,0")
    assert fields([tap.one("capset", pid=pid)], "ret effective cap_effective") == [(0, 0, 0)]
    pid, ret = int80(310, 0x4000000)
    assert fields([tap.one("unshare", pid=pid)], "ret flags") == [(ret, 0x4000000)]
    pid, ret = int80(346, 77, 0x4000000)
    assert fields([tap.one("setns", pid=pid)], "ret fd nstype") == [(-errno.EBADF, 77, 0x4000000)]
    pid, ret = int80(357, 0, "#2,4,8,16,0", 20)
    assert fields([tap.one("bpf", pid=pid)], "ret command map_type") == [(ret, 0, 2)]
    assert ret > 2
    pid, ret = int80(425, 4, "#" + ",".join("0" * 30))
    assert fields([tap.one("io_uring_setup", pid=pid)], "ret entries") == [(ret, 4)]
    pid, ret = int80(129, "@no_such_module", 0)
    assert fields([tap.one("module", pid=pid)], "ret call name") == [(ret, 2, b"no_such_module")]
    pid, ret = int80(350, 0, "@p=1", 2)
    assert fields([tap.one("module", pid=pid)], "ret call parameters flags fd") == [(ret, 1, b"p=1", 2, 0)]


@pytest.mark.needs("gcc", "compat")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((23, 0x12340000 + 1000), (1, SAME, 1000, SAME)),
        ((70, 0xFFFF, 1000), (3, SAME, 1000, SAME)),
        ((164, 0xFFFF, 1000, 0x70000), (5, SAME, 1000, 0)),
        ((170, 3, 0xFFFF, 0xFFFE), (6, 3, SAME, 0xFFFE)),
    ],
)
def test_ids_of_16_bits(tap: Tap, int80: Callable[..., tuple[int, int]], words: tuple[int, ...], expected: tuple[int, ...]) -> None:
    pid, ret = int80(*words)
    record = tap.one("setid", pid=pid)
    assert (ret, fields([record], "call real effective saved")) == (0, [expected])
    assert record["euid"] == (1000 if 1000 in expected else 0)
