"""The columns of events on memory, privileges and the inside of the kernel, from records made by hand."""

from pathlib import Path
from typing import Any

import pytest

from infrasight.schema.kinds import KINDS
from tests.node.records import make
from tests.node.test_enricher import drain, enricher_of, one, rows

DEEP = b"file\0" + b"a\0" * 500
CASES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "mmap",
        {"ret": [2**47 - 4096, -9], "addr": 2**47, "length": 5, "prot": 5, "flags": 2, "fd": [3, -1], "offset": 2**40}
        | {"file": [b"c\n.so\0lib\0", b""], "file_cut": 0},
        {"ret": [2**47 - 4096, -9], "addr": 2**47, "length": 5, "prot": 5, "flags": 2, "fd": [3, -1], "offset": 2**40, "file": [b"/lib/c\n.so", b""]},
    ),
    ("mmap", {"file": [b"\0", b"memfd:jit\0"], "file_cut": 0}, {"file": [b"/", b"/memfd:jit"]}),
    ("mmap_long", {"file": DEEP, "file_cut": [0, 1]}, {"file": [b"/a" * 500 + b"/file", b".../" + b"a/" * 500 + b"file"]}),
    ("mprotect", {"addr": 1, "length": 2**63, "prot": 7, "pkey": [-1, 3]}, {"addr": 1, "length": 2**63, "prot": 7, "pkey": [-1, 3]}),
    ("memfd_create", {"name": [b"\xff", b""], "flags": 3}, {"name": [b"\xff", b""], "flags": 3}),
    ("process_vm", {"action": [0, 1], "target_pid": 7, "flags": 1}, {"action": [b"read", b"write"], "target_pid": 7, "flags": 1}),
    (
        "module",
        {"call": [1, 2], "name": [b"", b"x"], "parameters": [b"a=1 b", b""], "file": [b"x.ko\0", b""], "file_cut": 0, "fd": [3, -1]},
        {"call": [b"finit_module", b"delete_module"], "name": [b"", b"x"], "parameters": [b"a=1 b", b""], "file": [b"/x.ko", b""], "fd": [3, -1]},
    ),
    (
        "bpf",
        {"command": [5, 0], "prog_type": [2, 0], "map_type": [0, 27], "name": [b"fifteen_letters", b""]},
        {
            "command": [b"BPF_PROG_LOAD", b"BPF_MAP_CREATE"],
            "prog_type": [b"kprobe", b""],
            "map_type": [b"", b"ringbuf"],
            "name": [b"fifteen_letters", b""],
        },
    ),
    (
        "bpf",
        {"command": [36, 99], "prog_type": [32, 77], "map_type": [33, 99]},
        {"command": [b"BPF_TOKEN_CREATE", b"99"], "prog_type": [b"netfilter", b"77"], "map_type": [b"arena", b"99"]},
    ),
    ("userfaultfd", {"flags": [1, 2**32 - 1]}, {"flags": [1, 2**32 - 1]}),
    ("io_uring_setup", {"entries": 8, "flags": 1, "features": 5}, {"entries": 8, "flags": 1, "features": 5}),
    (
        "setid",
        {"call": [1, 8], "real": 2**32 - 1, "effective": [5, 2**32 - 1], "saved": 1, "filesystem": 2, "real_before": 3, "saved_before": 4},
        {"call": [b"setuid", b"setfsgid"], "real": 2**32 - 1, "effective": [5, 2**32 - 1], "saved": 1, "filesystem": 2, "real_before": 3},
    ),
    ("capset", {"target_pid": [0, -1], "effective": 2**41 - 1, "permitted": 1}, {"target_pid": [0, -1], "effective": 2**41 - 1, "permitted": 1}),
    (
        "setns",
        {"nstype": 0x40000000, "type": [0x40000000, 0], "inode": [2**32, 0], "target_pid": 9, "fd": 3, "file": [b"blue\0netns\0run\0", b"/\0"]}
        | {"file_cut": 0},
        {"nstype": 0x40000000, "type": [b"net", b""], "inode": [2**32, 0], "target_pid": 9, "fd": 3, "file": [b"/run/netns/blue", b""]},
    ),
    ("unshare", {"flags": [0x20000, 2**63]}, {"flags": [0x20000, 2**63]}),
]


@pytest.mark.parametrize(("name", "raw", "expected"), CASES)
def test_columns(name: str, raw: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    found = rows(one(enricher_of(tmp_path), drain((name, make(name, 2, comm=b"c", **raw)))))
    for column, value in expected.items():
        assert [row[column] for row in found] == (value if isinstance(value, list) else [value] * 2)


@pytest.mark.parametrize("kind", sorted({name.removesuffix("_long") for name, _, _ in CASES}))
def test_rubbish_does_no_harm(kind: str, tmp_path: Path) -> None:
    """Whatever lies in the records; strings have no NUL inside."""
    records = make(kind, 1000)
    for slot in KINDS[kind].slots:
        records[slot.name][records[slot.name] == 0] = 1
    assert len(rows(one(enricher_of(tmp_path), drain((kind, records))))) == 1000
