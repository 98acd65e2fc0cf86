"""What a person and a script see of an event of each kind."""

from __future__ import annotations

import errno
import json
import os
import re
import time
from typing import Any

import pytest

from infrasight.present.gist import error_name, open_flags, signal_name
from infrasight.present.lines import compact_line, json_line, time_text
from infrasight.present.safe import width_of
from infrasight.schema.kinds import KINDS

NOW = time.time_ns()
WHO: dict[str, Any] = {"ts": NOW, "node": "box", "pid": 4711, "ppid": 1, "user": "root", "comm": "bash", "ancestors": ["sshd", "systemd"]}
ENDS: dict[str, Any] = {"family": "inet", "protocol": "tcp", "daddr": "10.0.0.2", "dport": 40000, "saddr": "10.0.0.1", "sport": 22, "path": ""}
UNIX: dict[str, Any] = {"family": "unix", "protocol": "stream", "daddr": "", "dport": 0, "saddr": "", "sport": 0, "path": "/run/\x1b]0;"}
ROWS: dict[str, dict[str, Any]] = {
    "batches": {"ts": NOW, "node": "box", "event_kind": "open", "rows": 17, "lag_ns": 1_500_000_000},
    "dead_letter": {"ts": NOW, "node": "box", "event_kind": "open\x1b]0;", "rows": 7, "reason": "not an Arrow stream", "payload": "\x00"},
    "nodes": {"ts": NOW, "node": "box", "action": "minute", "rows": 100, "lost": 3},
    "alerts": WHO | {"severity": "high", "title": "Shell", "message": "sh below\x1b]0;", "count": 3},
    "scores": {"ts": NOW, "node": "box", "comm": "x", "container_id": "", "container_name": "web\n", "score": 9.5, "threshold": 1.0}
    | {"anomalous": True, "reasons": ["cpu_ns=7"]},
    "execve": WHO | {"ret": 0, "path": "/bin/ls", "path_resolved": "/bin/ls", "argv": ["ls", "-l", "a b"], "argv_truncated": False},
    "open": WHO | {"ret": 3, "path": "/etc/passwd", "flags": os.O_RDONLY | os.O_CLOEXEC},
    "connect": WHO | {"ret": 0, "family": "inet", "protocol": "tcp", "daddr": "10.0.0.1", "dport": 443, "path": "", "name": ""},
    "process": WHO | {"action": "exit", "exit_code": 0, "signal": 9},
    "chmod": WHO | {"ret": 0, "path": "/bin/sh", "mode": 0o4755, "dirfd": -100, "fd": -1, "flags": 0},
    "ptrace": WHO | {"ret": -3, "request": "PTRACE_ATTACH", "target_pid": 99, "addr": 0, "data": 0},
    "mount": WHO
    | {"ret": 0, "call": "mount", "source": "/dev/sda1", "target": "/mnt", "fstype": "ext4", "flags": 0, "fd": -1}
    | {"command": "", "key": "", "value": "", "aux": 0, "attr_set": 0, "attr_clr": 0, "propagation": 0},
    "umount": WHO | {"ret": -22, "target": "/mnt", "flags": 0},
    "mmap": WHO | {"ret": 4096, "addr": 0, "length": 8192, "prot": 5, "flags": 2, "fd": 3, "offset": 0, "file": "/lib/c.so"},
    "mprotect": WHO | {"ret": 0, "addr": 4096, "length": 8192, "prot": 7, "pkey": -1},
    "memfd_create": WHO | {"ret": 3, "name": "jit", "flags": 1},
    "process_vm": WHO | {"ret": 8, "action": "read", "target_pid": 99, "local_count": 1, "remote_count": 2, "flags": 0},
    "module": WHO | {"ret": -38, "call": "finit_module", "name": "", "parameters": "a=1", "file": "/lib/x.ko", "fd": 3, "length": 0, "flags": 0},
    "bpf": WHO | {"ret": 5, "command": "BPF_MAP_CREATE", "prog_type": "", "map_type": "hash", "name": "jobs"},
    "userfaultfd": WHO | {"ret": 4, "flags": 1},
    "io_uring_setup": WHO | {"ret": 6, "entries": 8, "flags": 0, "features": 1},
    "setid": WHO
    | {"ret": 0, "call": "setresuid", "real": 1000, "effective": 1001, "saved": 2**32 - 1, "filesystem": 2**32 - 1}
    | {"real_before": 0, "effective_before": 1, "saved_before": 2},
    "capset": WHO | {"ret": 0, "target_pid": 0, "effective": 0x21, "permitted": 0x1FF, "inheritable": 0},
    "setns": WHO | {"ret": 0, "nstype": 0, "type": "net", "inode": 4026531840, "target_pid": 0, "fd": 3, "file": "/run/netns/blue"},
    "unshare": WHO | {"ret": 0, "flags": 0x60020000},
    "unlink": WHO | {"ret": 0, "path": "/tmp/x", "directory": False},
    "rename": WHO | {"ret": 0, "old_path": "/tmp/a", "new_path": "/tmp/b", "flags": 0},
    "link": WHO | {"ret": 0, "old_path": "/tmp/a", "old_path_resolved": "/tmp/a", "new_path": "/tmp/b", "flags": 0},
    "symlink": WHO | {"ret": 0, "target": "../a", "path": "/tmp/b"},
    "mkdir": WHO | {"ret": 0, "path": "/tmp/d", "mode": 0o750},
    "chroot": WHO | {"ret": 0, "call": "chroot", "path": "/srv", "put_old": ""},
    "resource": WHO
    | {"interval_ns": 2_500_000_000, "final": True, "cpu_ns": 1_234_567, "voluntary_switches": 1, "involuntary_switches": 2, "user_faults": 3}
    | {"kernel_faults": 4, "mapped_bytes": 5, "unmapped_bytes": 6, "brk_grown_bytes": 7, "brk_shrunk_bytes": 8, "bytes_read": 1023}
    | {"bytes_written": 1 << 20, "bytes_received": 1, "bytes_sent": 1 << 19},
    "syscall_freq": WHO | {"interval_ns": 10_000_000_000, "final": False, "syscall": "openat", "number": 257, "count": 17},
    "accept": WHO | ENDS | {"ret": 5, "peer_path": "", "fd": 3, "flags": 0},
    "bind": WHO | ENDS | {"ret": 0, "addr": "0.0.0.0", "port": 0, "fd": 3},
    "listen": WHO | ENDS | {"ret": 0, "fd": 3, "backlog": 128},
    "socket": WHO | {"ret": 3, "domain": "packet", "type": "raw", "protocol": "all", "flags": 0},
    "dns": WHO
    | {"ret": 40, "action": "query", "name": "example.org", "qtype": "A", "id": 7, "rcode": "", "addresses": [], "bytes": 40, "fd": 3}
    | {"daddr": "10.0.0.53", "dport": 53, "saddr": "10.0.0.1", "sport": 40000},
    "dup": WHO | ENDS | {"ret": 0, "old_fd": 3},
    "container": {"ts": NOW, "node": "box", "container_id": "0a", "container_runtime": "docker", "pod_uid": "", "container_name": "web"}
    | {"image": "nginx:1", "image_digest": "", "container_labels": [], "container_created": NOW, "privileged": False}
    | {"pod_name": "", "pod_namespace": "", "state": "learned"},
    "loss": {"ts": NOW, "node": "box", "since": NOW - 1, "probe": "open", "reason": "ring_full", "count": 7},
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def gist_of(kind: str, **changed: object) -> str:
    line = compact_line(kind, ROWS[kind] | changed)
    return line.split(f" {kind}", 1)[1].strip()


@pytest.mark.parametrize(
    ("kind", "changed", "shown"),
    [
        ("execve", {}, "/bin/ls as ls -l 'a b'"),
        ("execve", {"argv": ["/bin/ls"]}, "/bin/ls"),
        ("execve", {"ret": -errno.ENOENT, "argv": ["/bin/ls"], "argv_truncated": True}, "/bin/ls … → ENOENT"),
        ("execve", {"argv": []}, "/bin/ls as (no arguments)"),
        ("execve", {"argv": ["x"], "path": "", "path_resolved": "/memfd:a\n"}, r"/memfd:a\n as x"),
        ("open", {}, "/etc/passwd rdonly|cloexec → 3"),
        ("open", {"ret": -13, "path": "a\nb\x1b[31m"}, r"a\nb\e[31m rdonly|cloexec → EACCES"),
        ("connect", {}, "tcp 10.0.0.1:443"),
        ("connect", {"family": "inet6", "daddr": "::1", "ret": -111}, "tcp [::1]:443 → ECONNREFUSED"),
        ("connect", {"family": "unix", "protocol": "stream", "path": "@x\0y", "daddr": ""}, r"unix stream @x\x00y"),
        ("connect", {"ret": -errno.EINPROGRESS}, "tcp 10.0.0.1:443 → EINPROGRESS"),
        ("process", {}, "exit SIGKILL"),
        ("process", {"signal": 0, "exit_code": 3}, "exit 3"),
        ("process", {"action": "fork"}, "fork by sshd (1)"),
        ("process", {"action": "exec"}, "exec"),
        ("chmod", {}, "/bin/sh 4755"),
        ("chmod", {"path": "", "fd": 5, "mode": 0o640, "ret": -1}, "fd 5 0640 → EPERM"),
        ("ptrace", {}, "PTRACE_ATTACH of 99 → ESRCH"),
        ("mount", {}, "/dev/sda1 on /mnt type ext4"),
        ("mount", {"source": "", "fstype": "", "ret": -2}, "(nothing) on /mnt → ENOENT"),
        ("mount", {"call": "fsopen", "source": "", "target": "", "ret": -19}, "fsopen ext4 → ENODEV"),
        ("mount", {"call": "fspick", "target": "a\nb", "fd": 5}, r"fspick a\nb"),
        (
            "mount",
            {"call": "fsconfig", "fd": 3, "command": "FSCONFIG_SET_STRING", "key": "source", "value": "/dev/\x1b"},
            r"fsconfig fd 3 set_string source=/dev/\e",
        ),
        ("mount", {"call": "fsconfig", "fd": 3, "command": "FSCONFIG_SET_FLAG", "key": "ro", "value": ""}, "fsconfig fd 3 set_flag ro"),
        ("mount", {"call": "fsconfig", "fd": 3, "command": "FSCONFIG_CMD_CREATE"}, "fsconfig fd 3 cmd_create"),
        ("mount", {"call": "fsmount", "fd": 3, "target": "", "attr_set": 1}, "fsmount fd 3 +0x1"),
        ("mount", {"call": "open_tree", "fd": -100}, "open_tree /mnt"),
        ("mount", {"call": "move_mount", "fd": 4, "source": ""}, "move_mount fd 4 on /mnt"),
        ("mount", {"call": "move_mount", "fd": -100, "source": "/a"}, "move_mount /a on /mnt"),
        ("mount", {"call": "mount_setattr", "attr_set": 3, "attr_clr": 8, "ret": -1}, "mount_setattr /mnt +0x3 -0x8 → EPERM"),
        ("umount", {}, "/mnt → EINVAL"),
        ("mmap", {}, "/lib/c.so r-x 8192 bytes → 0x1000"),
        ("mmap", {"file": "", "prot": 7, "ret": -12}, "(anonymous) rwx 8192 bytes → ENOMEM"),
        ("mmap", {"file": "/a\n\x1b[31m"}, r"/a\n\e[31m r-x 8192 bytes → 0x1000"),
        ("mprotect", {}, "0x1000 rwx 8192 bytes"),
        ("mprotect", {"prot": 4, "ret": -13}, "0x1000 --x 8192 bytes → EACCES"),
        ("memfd_create", {}, "jit → 3"),
        ("memfd_create", {"name": "", "ret": -14}, "(no name) → EFAULT"),
        ("process_vm", {}, "read 99 → 8 bytes"),
        ("process_vm", {"action": "write", "ret": -3}, "write 99 → ESRCH"),
        ("module", {}, "finit_module /lib/x.ko a=1 → ENOSYS"),
        ("module", {"call": "init_module", "file": "", "parameters": "", "length": 7, "ret": 0}, "init_module 7 bytes"),
        ("module", {"call": "delete_module", "file": "", "parameters": "", "name": "x\r", "ret": -2}, r"delete_module x\r → ENOENT"),
        ("bpf", {}, "BPF_MAP_CREATE hash jobs → 5"),
        ("bpf", {"command": "BPF_PROG_ATTACH", "map_type": "", "name": "", "ret": -1}, "BPF_PROG_ATTACH → EPERM"),
        ("userfaultfd", {}, "user mode only → 4"),
        ("userfaultfd", {"flags": 0, "ret": -1}, "kernel mode too → EPERM"),
        ("io_uring_setup", {}, "8 entries → 6"),
        ("setid", {}, "setresuid real 0→1000 effective 1→1001"),
        ("setid", {"call": "setfsuid", "real": 2**32 - 1, "effective": 2**32 - 1, "filesystem": 7}, "setfsuid filesystem 7"),
        ("capset", {}, "effective 21 permitted 1ff"),
        ("setns", {}, "net:[4026531840] /run/netns/blue"),
        ("setns", {"target_pid": 9, "nstype": 0x20000, "type": "", "inode": 0, "file": "", "ret": -1}, "CLONE_NEWNS of process 9 → EPERM"),
        ("unshare", {}, "CLONE_NEWNS|CLONE_NEWPID|CLONE_NEWNET"),
        ("unshare", {"flags": 0x601, "ret": -22}, "CLONE_FS|CLONE_FILES|0x1 → EINVAL"),
        ("resource", {}, "cpu 1.2 ms, read 1.0 KiB, wrote 1.5 MiB, 7 faults in 2.5 s, the last"),
        ("resource", {"final": False, "bytes_read": 0}, "cpu 1.2 ms, read 1 B, wrote 1.5 MiB, 7 faults in 2.5 s"),
        ("syscall_freq", {}, "openat x 17 in 10.0 s"),
        ("unlink", {}, "/tmp/x"),
        ("unlink", {"path": "a\nb", "directory": True, "ret": -errno.ENOTEMPTY}, r"a\nb directory → ENOTEMPTY"),
        ("rename", {}, "/tmp/a to /tmp/b"),
        ("rename", {"old_path": "\x1b[31m", "flags": 0x83, "ret": -errno.EINVAL}, r"\e[31m to /tmp/b noreplace|exchange|0x80 → EINVAL"),
        ("link", {}, "/tmp/b is /tmp/a"),
        ("link", {"old_path": "", "flags": 0x1400}, "/tmp/b is /tmp/a follow|empty_path"),
        ("symlink", {"target": "\n"}, r"/tmp/b says \n"),
        ("mkdir", {"ret": -errno.EEXIST}, "/tmp/d 0750 → EEXIST"),
        ("chroot", {}, "chroot /srv"),
        ("chroot", {"call": "pivot_root", "path": ".", "put_old": "."}, "pivot_root . old root on ."),
        ("accept", {}, "tcp 10.0.0.2:40000 at 10.0.0.1:22 → 5"),
        ("accept", {"family": "inet6", "daddr": "::1", "saddr": "::1"}, "tcp [::1]:40000 at [::1]:22 → 5"),
        ("accept", {"ret": -errno.EAGAIN, "daddr": ""}, "tcp 10.0.0.1:22 → EAGAIN"),
        ("accept", UNIX, r"unix stream a connection at /run/\e]0; → 5"),
        ("accept", UNIX | {"peer_path": "@me\n"}, r"unix stream @me\n at /run/\e]0; → 5"),
        ("bind", {}, "tcp 0.0.0.0:0 got 22"),
        ("bind", {"addr": "::", "port": 22, "ret": -errno.EADDRINUSE}, "tcp [::]:22 → EADDRINUSE"),
        ("bind", UNIX | {"addr": ""}, r"unix stream /run/\e]0;"),
        ("listen", {}, "tcp 10.0.0.1:22 backlog 128"),
        ("listen", UNIX | {"ret": -22, "path": ""}, "unix stream (no path) backlog 128 → EINVAL"),
        ("socket", {}, "packet raw all → 3"),
        ("socket", {"domain": "inet", "protocol": "icmp", "ret": -1}, "inet raw icmp → EPERM"),
        ("connect", {"name": "example.org\x1b"}, r"tcp 10.0.0.1:443 (example.org\e)"),
        ("dns", {}, "A example.org of 10.0.0.53"),
        ("dns", {"ret": -errno.ENETUNREACH, "name": ""}, "A (no name) of 10.0.0.53 → ENETUNREACH"),
        ("dns", {"action": "answer", "rcode": "NOERROR", "addresses": ["1.2.3.4", "::1"]}, "A example.org → 1.2.3.4, ::1"),
        ("dns", {"action": "answer", "rcode": "NOERROR", "qtype": "MX"}, "MX example.org → (no address)"),
        ("dns", {"action": "answer", "rcode": "NXDOMAIN", "name": "\x1b"}, r"A \e → NXDOMAIN"),
        ("dup", {}, "tcp socket 3 with 10.0.0.2:40000 as fd 0"),
        ("dup", UNIX, r"unix stream socket 3 with /run/\e]0; as fd 0"),
        ("dup", {"family": "netlink", "protocol": "0", "daddr": ""}, "netlink 0 socket 3 as fd 0"),
        ("loss", {}, "7 open events lost (ring_full)"),
        ("loss", {"probe": "", "reason": "unseen", "count": 0}, "events lost, nobody knows how many (unseen)"),
        ("container", {}, "0a learned web from nginx:1"),
        ("container", {"pod_name": "a\n", "pod_namespace": "shop", "state": "ended"}, r"0a ended web of shop/a\n from nginx:1"),
    ],
)
def test_the_gist(kind: str, changed: dict[str, object], shown: str) -> None:
    assert gist_of(kind, **changed) == shown


def test_there_is_a_sample_of_every_kind() -> None:
    assert ROWS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", list(KINDS))
def test_colour_changes_nothing_but_colour(kind: str) -> None:
    coloured = compact_line(kind, ROWS[kind], colour=True)
    assert "\x1b[" in coloured
    assert ANSI.sub("", coloured).rstrip() == compact_line(kind, ROWS[kind])


@pytest.mark.parametrize("kind", list(KINDS))
def test_kinds_are_aligned(kind: str) -> None:
    assert compact_line(kind, ROWS[kind]).index(f" {kind} ") == compact_line("open", ROWS["open"]).index(" open ")


def test_hostile_names_stay_on_the_line() -> None:
    row = ROWS["open"] | {"comm": "\x1b]0;x\x07\n", "user": "\r", "node": "\x9b", "path": "\u202e"}
    assert compact_line("open", row, node=True).isprintable()


@pytest.mark.parametrize("width", [1, 20, 50, 62, 63, 64, 200])
def test_a_narrow_terminal_cuts_with_an_ellipsis(width: int) -> None:
    row = ROWS["open"] | {"path": "/日本"}
    whole, line = compact_line("open", row), compact_line("open", row, width=width)
    assert width_of(line) <= width
    assert line == whole if width_of(whole) <= width else line.endswith("…")
    assert ANSI.sub("", compact_line("open", row, colour=True, width=width)) == line


def test_the_node_is_shown_on_request() -> None:
    assert " box " in compact_line("open", ROWS["open"], node=True)
    assert " box " not in compact_line("open", ROWS["open"])


def test_a_container_is_shown_short() -> None:
    shown = compact_line("open", ROWS["open"] | {"container_id": "0a" * 32}).split(" open ")[1]
    assert shown.split() == ["0a" * 6, "/etc/passwd", "rdonly|cloexec", "→", "3"]
    assert compact_line("open", ROWS["open"] | {"container_id": ""}) == compact_line("open", ROWS["open"])
    assert r" a\n\e " in compact_line("open", ROWS["open"] | {"container_id": "a\n\x1b"})


def test_another_day_shows_its_date() -> None:
    assert re.match(r"\d\d:\d\d:\d\d\.\d{3} ", compact_line("open", ROWS["open"]))
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:", compact_line("open", ROWS["open"] | {"ts": NOW - 3 * 86_400 * 10**9}))


def test_a_kind_that_is_not_known_shows_its_columns() -> None:
    assert "colour=blue" in compact_line("paint", WHO | {"colour": "blue"})


@pytest.mark.parametrize("kind", list(KINDS))
def test_json_has_every_column(kind: str) -> None:
    line = json_line(kind, ROWS[kind] | {"node": "\x1b\x7f\u202e"})
    assert line.isascii()
    assert line.isprintable()
    said = json.loads(line)
    assert said.pop("kind") == kind
    assert said.keys() == ROWS[kind].keys()
    assert said["node"] == "\x1b\x7f\u202e"


def test_times_keep_their_nanoseconds() -> None:
    assert time_text(1_700_000_000_000_000_007) == "2023-11-14T22:13:20.000000007Z"


def test_flags_by_name() -> None:
    assert open_flags(os.O_WRONLY | os.O_CREAT | os.O_TRUNC) == "wronly|creat|trunc"
    assert open_flags(os.O_RDWR | os.O_TMPFILE) == "rdwr|tmpfile"
    assert open_flags(os.O_RDONLY | os.O_SYNC | os.O_DIRECTORY) == "rdonly|sync|directory"
    assert open_flags(0x40000000) == "rdonly|0x40000000"


def test_numbers_without_a_name_stay_numbers() -> None:
    assert error_name(-4095) == "-4095"
    assert error_name(-512) == "ERESTARTSYS"
    assert signal_name(99) == "signal 99"
