"""What matters in an event of each kind, in a few words. Pieces are (text, style) with the text already safe to show."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from typing import Any

from infrasight.present.safe import command, printable

Row = Mapping[str, Any]
Piece = tuple[str, str]

_ACCESS = {os.O_RDONLY: "rdonly", os.O_WRONLY: "wronly", os.O_RDWR: "rdwr", os.O_ACCMODE: "ioctl"}
_FLAGS = (
    "TMPFILE",
    "SYNC",
    "DSYNC",
    "CREAT",
    "EXCL",
    "TRUNC",
    "APPEND",
    "DIRECTORY",
    "NOFOLLOW",
    "PATH",
    "NONBLOCK",
    "NOCTTY",
    "DIRECT",
    "NOATIME",
)
_NOT_ERRNO = {512: "ERESTARTSYS", 513: "ERESTARTNOINTR", 514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK"}  # include/linux/errno.h


def error_name(ret: int) -> str:
    """`-2` -> `ENOENT`; the number where it has no name."""
    return errno.errorcode.get(-ret) or _NOT_ERRNO.get(-ret, str(ret))


def open_flags(flags: int) -> str:
    """`0o100001` -> `wronly|...`: the access mode, then the O_* names in lower case; bits without a name stay in hexadecimal."""
    words = [_ACCESS[flags & os.O_ACCMODE]]
    rest = flags & ~os.O_ACCMODE & ~os.O_CLOEXEC
    for name in _FLAGS:
        bits = getattr(os, f"O_{name}")
        if bits and rest & bits == bits:
            words.append(name.lower())
            rest &= ~bits
    words += ["cloexec"] if flags & os.O_CLOEXEC else []
    return "|".join(words + ([hex(rest)] if rest else []))


_CLONE = {
    0x80: "TIME",
    0x200: "FS",
    0x400: "FILES",
    0x20000: "MNT",
    0x40000: "SYSVSEM",
    0x2000000: "CGROUP",
    0x4000000: "UTS",
    0x8000000: "IPC",
    0x10000000: "USER",
    0x20000000: "PID",
    0x40000000: "NET",
}
"""CLONE_*, and CLONE_NEW* which are namespaces (include/uapi/linux/sched.h)."""
_SHARED = ("FS", "FILES", "SYSVSEM")
_NO_ID = 2**32 - 1


def clone_flags(flags: int) -> str:
    """`0x20200` -> `CLONE_FS|CLONE_NEWNS`; bits without a name stay in hexadecimal."""
    words = [f"CLONE_{'' if name in _SHARED else 'NEW'}{'NS' if name == 'MNT' else name}" for bit, name in _CLONE.items() if flags & bit]
    rest = flags & ~sum(_CLONE)
    return "|".join(words + ([hex(rest)] if rest or not words else []))


def protection(prot: int) -> str:
    """`5` -> `r-x`, as /proc/PID/maps has it."""
    return "".join(letter if prot & bit else "-" for bit, letter in ((1, "r"), (2, "w"), (4, "x")))


def signal_name(number: int) -> str:
    """`9` -> `SIGKILL`; the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _outcome(row: Row, good: str = "") -> list[Piece]:
    """An arrow and what came of the call; `good` is what a success shows, nothing when empty."""
    if row["ret"] >= 0:
        return [(f" → {good}", "faint")] if good else []
    return [(" → ", "faint"), (error_name(row["ret"]), "plain" if row["ret"] == -errno.EINPROGRESS else "bad")]


def _execve(row: Row) -> list[Piece]:
    words = row["argv"]
    shown = command(words) + (" …" if row["argv_truncated"] else "")
    asked = [] if words and words[0] == row["path"] else [(printable(row["path"] or row["path_resolved"]), "strong"), (" as ", "faint")]
    return [*asked, (shown or "(no arguments)", "strong" if not asked else "plain"), *_outcome(row)]


def _open(row: Row) -> list[Piece]:
    return [(printable(row["path"]), "strong"), (f" {open_flags(row['flags'])}", "faint"), *_outcome(row, str(row["ret"]))]


def _end(row: Row, address: str, port: str, path: str = "path") -> str:
    """One end of a socket: `10.0.0.1:443`, `[::1]:443`, a path."""
    if row["family"] not in ("inet", "inet6"):
        return printable(row[path]) or "(no path)"
    host = printable(row[address])
    return f"[{host}]:{row[port]}" if ":" in host else f"{host}:{row[port]}"


def _socket_kind(row: Row) -> str:
    return printable(row["protocol"] if row["family"] in ("inet", "inet6") else f"{row['family']} {row['protocol']}") + " "


def _connect(row: Row) -> list[Piece]:
    name = f" ({printable(row['name'])})" if row["name"] else ""
    return [(_socket_kind(row), "faint"), (_end(row, "daddr", "dport"), "strong"), (name, "plain"), *_outcome(row)]


def _dns(row: Row) -> list[Piece]:
    asked = [(printable(row["qtype"]) + " ", "faint"), (printable(row["name"]) or "(no name)", "strong")]
    if row["action"] == "query":
        return [*asked, (f" of {printable(row['daddr'])}", "faint"), *_outcome(row)]
    if row["rcode"] != "NOERROR":
        return [*asked, (" → ", "faint"), (printable(row["rcode"]), "bad")]
    return [*asked, (" → ", "faint"), (printable(", ".join(row["addresses"])) or "(no address)", "plain")]


def _accept(row: Row) -> list[Piece]:
    at = _end(row, "saddr", "sport")
    if row["ret"] < 0:
        return [(_socket_kind(row), "faint"), (at, "strong"), *_outcome(row)]
    peer = _end(row, "daddr", "dport", "peer_path") if row["peer_path"] or row["daddr"] else "a connection"
    return [(_socket_kind(row), "faint"), (peer, "strong"), (f" at {at}", "plain"), *_outcome(row, str(row["ret"]))]


def _bind(row: Row) -> list[Piece]:
    chosen = f" got {row['sport']}" if row["ret"] >= 0 and row["port"] != row["sport"] else ""
    return [(_socket_kind(row), "faint"), (_end(row, "addr", "port"), "strong"), (chosen, "plain"), *_outcome(row)]


def _listen(row: Row) -> list[Piece]:
    return [(_socket_kind(row), "faint"), (_end(row, "saddr", "sport"), "strong"), (f" backlog {row['backlog']}", "faint"), *_outcome(row)]


def _socket(row: Row) -> list[Piece]:
    return [(printable(f"{row['domain']} {row['type']}"), "strong"), (f" {printable(row['protocol'])}", "plain"), *_outcome(row, str(row["ret"]))]


def _dup(row: Row) -> list[Piece]:
    peer = f" with {_end(row, 'daddr', 'dport')}" if row["daddr"] or row["path"] else ""
    return [(f"{_socket_kind(row)}socket {row['old_fd']}{peer}", "plain"), (f" as fd {row['ret']}", "strong")]


def _process(row: Row) -> list[Piece]:
    if row["action"] == "fork":
        parent = printable(row["ancestors"][0]) if row["ancestors"] else "?"
        return [("fork", "strong"), (f" by {parent} ({row['ppid']})", "faint")]
    if row["action"] != "exit":
        return [(printable(row["action"]), "strong")]
    if row["signal"]:
        return [("exit ", "strong"), (signal_name(row["signal"]), "bad")]
    return [("exit ", "strong"), (str(row["exit_code"]), "bad" if row["exit_code"] else "plain")]


def _loss(row: Row) -> list[Piece]:
    lost = f"{row['count']} {printable(row['probe'])} events lost" if row["count"] else "events lost, nobody knows how many"
    return [(lost, "bad"), (f" ({printable(row['reason'])})", "plain")]


def _batches(row: Row) -> list[Piece]:
    return [(f"{row['rows']} {printable(row['event_kind'])} events", "strong"), (f" stored after {row['lag_ns'] / 1e9:.1f} s", "plain")]


def _dead_letter(row: Row) -> list[Piece]:
    return [(f"{row['rows']} {printable(row['event_kind'])} events never stored", "bad"), (f": {printable(row['reason'])}", "plain")]


def _nodes(row: Row) -> list[Piece]:
    lost = f" {row['lost']} lost" if row["lost"] else ""
    return [(printable(row["action"]), "strong"), (f" {row['rows']} events", "plain"), (lost, "bad")]


def _alerts(row: Row) -> list[Piece]:
    times = f" {row['count']} times" if row["count"] > 1 else ""
    return [(printable(f"{row['severity']} {row['title']}"), "bad"), (f" {printable(row['message'])}", "plain"), (times, "faint")]


def _scores(row: Row) -> list[Piece]:
    who = printable(row["container_name"] or row["container_id"] or row["comm"])
    reasons = printable(", ".join(row["reasons"]))
    return [(who, "strong"), (f" {row['score']:.3g} of {row['threshold']:.3g}", "bad" if row["anomalous"] else "plain"), (f" {reasons}", "faint")]


def _container(row: Row) -> list[Piece]:
    pod = f" of {printable(row['pod_namespace'])}/{printable(row['pod_name'])}" if row["pod_name"] else ""
    name, image = printable(row["container_name"]), printable(row["image"])
    return [(printable(row["state"]), "strong"), (f" {name}{pod}", "plain"), (f" from {image}", "faint")]


def _any(row: Row) -> list[Piece]:
    return [(printable(" ".join(f"{name}={value}" for name, value in row.items())), "plain")]


def _chmod(row: Row) -> list[Piece]:
    what = printable(row["path"]) if row["fd"] < 0 else f"fd {row['fd']}"
    return [(what, "strong"), (f" {row['mode']:04o}", "plain"), *_outcome(row)]


def _ptrace(row: Row) -> list[Piece]:
    return [(printable(row["request"]), "strong"), (f" of {row['target_pid']}", "plain"), *_outcome(row)]


def _mount(row: Row) -> list[Piece]:
    """What a mount puts where; of the other calls their name and what they are given."""
    if row["call"] == "mount":
        kind = f" type {printable(row['fstype'])}" if row["fstype"] else ""
        return [(printable(row["source"]) or "(nothing)", "strong"), (f" on {printable(row['target'])}{kind}", "plain"), *_outcome(row)]
    given = " ".join(_mount_words(row))
    return [(printable(row["call"]), "strong"), (f" {given}" if given else "", "plain"), *_outcome(row)]


def _mount_words(row: Row) -> list[str]:
    if row["call"] == "fsconfig":
        setting = "=".join(printable(row[name]) for name in ("key", "value") if row[name])
        return [f"fd {row['fd']}", printable(row["command"]).removeprefix("FSCONFIG_").lower(), *([setting] if setting else [])]
    fd = f"fd {row['fd']}" if row["fd"] >= 0 else ""
    if row["call"] == "move_mount":
        return [printable(row["source"]) or fd or "(nothing)", "on", printable(row["target"])]
    if row["call"] == "fsopen":
        return [printable(row["fstype"])]
    added = [f"{sign}{attributes:#x}" for sign, attributes in (("+", row["attr_set"]), ("-", row["attr_clr"])) if attributes]
    return [printable(row["target"]) or fd, *added]


def _umount(row: Row) -> list[Piece]:
    return [(printable(row["target"]), "strong"), *_outcome(row)]


def size(number: int) -> str:
    """Bytes as people say them: `0 B`, `3.4 MiB`."""
    amount, units = float(number), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.1f} {units[0]}" if units[0] != "B" else f"{number} B"


def _resource(row: Row) -> list[Piece]:
    read, written = row["bytes_read"] + row["bytes_received"], row["bytes_written"] + row["bytes_sent"]
    used = f"cpu {row['cpu_ns'] / 1e6:.1f} ms, read {size(read)}, wrote {size(written)}, {row['user_faults'] + row['kernel_faults']} faults"
    return [(used, "strong"), (f" in {row['interval_ns'] / 1e9:.1f} s{', the last' if row['final'] else ''}", "faint")]


def _syscall_freq(row: Row) -> list[Piece]:
    return [(f"{printable(row['syscall'])} x {row['count']}", "strong"), (f" in {row['interval_ns'] / 1e9:.1f} s", "faint")]


def _memory(row: Row) -> list[Piece]:
    return [(protection(row["prot"]), "plain"), (f" {row['length']} bytes", "faint")]


def _mmap(row: Row) -> list[Piece]:
    return [(printable(row["file"]) or "(anonymous)", "strong"), (" ", "plain"), *_memory(row), *_outcome(row, hex(row["ret"]))]


def _mprotect(row: Row) -> list[Piece]:
    return [(hex(row["addr"]), "strong"), (" ", "plain"), *_memory(row), *_outcome(row)]


def _memfd_create(row: Row) -> list[Piece]:
    return [(printable(row["name"]) or "(no name)", "strong"), *_outcome(row, str(row["ret"]))]


def _process_vm(row: Row) -> list[Piece]:
    return [(printable(row["action"]), "strong"), (f" {row['target_pid']}", "plain"), *_outcome(row, f"{row['ret']} bytes")]


def _module(row: Row) -> list[Piece]:
    what = printable(row["name"] or row["file"]) or f"{row['length']} bytes"
    parameters = f" {printable(row['parameters'])}" if row["parameters"] else ""
    return [(printable(row["call"]), "plain"), (f" {what}", "strong"), (parameters, "plain"), *_outcome(row)]


def _bpf(row: Row) -> list[Piece]:
    made = "".join(f" {printable(row[name])}" for name in ("prog_type", "map_type", "name") if row[name])
    return [(printable(row["command"]), "strong"), (made, "plain"), *_outcome(row, str(row["ret"]))]


def _userfaultfd(row: Row) -> list[Piece]:
    return [("user mode only" if row["flags"] & 1 else "kernel mode too", "strong"), *_outcome(row, str(row["ret"]))]


def _io_uring_setup(row: Row) -> list[Piece]:
    return [(f"{row['entries']} entries", "strong"), *_outcome(row, str(row["ret"]))]


def _setid(row: Row) -> list[Piece]:
    asked = [(name, row[name], row.get(f"{name}_before")) for name in ("real", "effective", "saved", "filesystem") if row[name] != _NO_ID]
    changes = "".join(f" {name} {value if before is None else f'{before}→{value}'}" for name, value, before in asked)
    return [(printable(row["call"]), "plain"), (changes, "strong"), *_outcome(row)]


def _capset(row: Row) -> list[Piece]:
    return [(f"effective {row['effective']:x}", "strong"), (f" permitted {row['permitted']:x}", "plain"), *_outcome(row)]


def _setns(row: Row) -> list[Piece]:
    if row["target_pid"]:
        return [(clone_flags(row["nstype"]), "strong"), (f" of process {row['target_pid']}", "plain"), *_outcome(row)]
    file = f" {printable(row['file'])}" if row["file"] else ""
    return [(f"{printable(row['type']) or '?'}:[{row['inode']}]", "strong"), (file, "plain"), *_outcome(row)]


def _unshare(row: Row) -> list[Piece]:
    return [(clone_flags(row["flags"]), "strong"), *_outcome(row)]


def _unlink(row: Row) -> list[Piece]:
    return [(printable(row["path"]), "strong"), (" directory" if row["directory"] else "", "faint"), *_outcome(row)]


def _mkdir(row: Row) -> list[Piece]:
    return [(printable(row["path"]), "strong"), (f" {row['mode']:04o}", "plain"), *_outcome(row)]


def _names(flags: int, names: Mapping[int, str]) -> str:
    """Flags by name, in lower case and after a blank; bits without a name stay in hexadecimal."""
    rest = flags & ~sum(names)
    words = [name for bit, name in names.items() if flags & bit] + ([hex(rest)] if rest else [])
    return " " + "|".join(words) if words else ""


def _rename(row: Row) -> list[Piece]:
    flags = _names(row["flags"], {1: "noreplace", 2: "exchange", 4: "whiteout"})
    return [(printable(row["old_path"]), "strong"), (f" to {printable(row['new_path'])}", "plain"), (flags, "faint"), *_outcome(row)]


def _link(row: Row) -> list[Piece]:
    flags = _names(row["flags"], {0x400: "follow", 0x1000: "empty_path"})
    what = printable(row["old_path"] or row["old_path_resolved"])
    return [(printable(row["new_path"]), "strong"), (f" is {what}", "plain"), (flags, "faint"), *_outcome(row)]


def _symlink(row: Row) -> list[Piece]:
    return [(printable(row["path"]), "strong"), (f" says {printable(row['target'])}", "plain"), *_outcome(row)]


def _chroot(row: Row) -> list[Piece]:
    old = f" old root on {printable(row['put_old'])}" if row["call"] == "pivot_root" else ""
    return [(printable(row["call"]), "faint"), (f" {printable(row['path'])}", "strong"), (old, "plain"), *_outcome(row)]


GISTS: dict[str, Callable[[Row], list[Piece]]] = {
    "execve": _execve,
    "open": _open,
    "connect": _connect,
    "process": _process,
    "loss": _loss,
    "container": _container,
    "chmod": _chmod,
    "ptrace": _ptrace,
    "mount": _mount,
    "umount": _umount,
    "resource": _resource,
    "syscall_freq": _syscall_freq,
    "mmap": _mmap,
    "mprotect": _mprotect,
    "memfd_create": _memfd_create,
    "process_vm": _process_vm,
    "module": _module,
    "bpf": _bpf,
    "userfaultfd": _userfaultfd,
    "io_uring_setup": _io_uring_setup,
    "setid": _setid,
    "capset": _capset,
    "setns": _setns,
    "unshare": _unshare,
    "unlink": _unlink,
    "rename": _rename,
    "link": _link,
    "symlink": _symlink,
    "mkdir": _mkdir,
    "chroot": _chroot,
    "accept": _accept,
    "bind": _bind,
    "listen": _listen,
    "socket": _socket,
    "dup": _dup,
    "dns": _dns,
    "batches": _batches,
    "nodes": _nodes,
    "dead_letter": _dead_letter,
    "alerts": _alerts,
    "scores": _scores,
}


def gist(kind: str, row: Row) -> list[Piece]:
    """What an event of `kind` is about."""
    return GISTS.get(kind, _any)(row)
