"""Looking into the maps of attached programs from outside: through the bpf system call, not through what is tested."""

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from infrasight.kernel import Tracing

_BPF = {"x86_64": 321, "aarch64": 280}
_LOOKUP, _NEXT_KEY, _PROG_BY_ID, _MAP_BY_ID, _INFO_BY_FD, _TASK_FD_QUERY = 1, 4, 13, 14, 15, 20  # include/uapi/linux/bpf.h: enum bpf_cmd
_INFO_BYTES = 232
_PROG_ARRAY = 3  # the same: enum bpf_map_type
_CALL = struct.Struct("<QQ6QIIQQ")
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> int:
    given = ctypes.create_string_buffer(attributes.ljust(128, b"\0"))
    return int(_libc.syscall(_BPF[platform.machine()], command, given, 128))


def _info(fd: int, given: bytes = b"") -> bytes:
    """struct bpf_prog_info or bpf_map_info."""
    info = ctypes.create_string_buffer(given.ljust(_INFO_BYTES, b"\0"), _INFO_BYTES)
    request = fd.to_bytes(4, "little") + _INFO_BYTES.to_bytes(4, "little") + ctypes.addressof(info).to_bytes(8, "little")
    assert _bpf(_INFO_BY_FD, request) == 0, os.strerror(ctypes.get_errno())
    return info.raw


def _program_of(link: int) -> int:
    """Id of the program."""
    query = (ctypes.c_uint32 * 32)(os.getpid(), link)
    assert _libc.syscall(_BPF[platform.machine()], _TASK_FD_QUERY, query, ctypes.sizeof(query)) == 0, os.strerror(ctypes.get_errno())
    return int(query[6])


def _maps_of_program(program: int) -> list[int]:
    """Descriptors of the maps of a program, which is closed."""
    ids = (ctypes.c_uint32 * 64)()
    # nr_map_ids and map_ids of struct bpf_prog_info
    info = _info(program, bytes(52) + (64).to_bytes(4, "little") + ctypes.addressof(ids).to_bytes(8, "little"))
    os.close(program)
    return [_bpf(_MAP_BY_ID, number.to_bytes(4, "little")) for number in ids[: int.from_bytes(info[52:56], "little")]]


def _programs_in(map_fd: int) -> Iterator[int]:
    """Ids of the programs in a map of those that others go on to; none in any other map."""
    kind, _, _, _, most = struct.unpack_from("<5I", _info(map_fd))  # struct bpf_map_info
    value = ctypes.create_string_buffer(4)
    for index in range(most if kind == _PROG_ARRAY else 0):
        key = ctypes.create_string_buffer(index.to_bytes(4, "little"), 4)
        if _bpf(_LOOKUP, _words(map_fd, ctypes.addressof(key), ctypes.addressof(value))) == 0:
            yield int.from_bytes(value.raw, "little")


@contextmanager
def maps_of(tracing: Tracing) -> Iterator[dict[str, int]]:
    """Name (15 bytes at most) -> file descriptor of each map of the programs that are attached, and of those that they go on to."""
    maps: dict[str, int] = {}
    programs = [_program_of(link) for event, links in tracing._hooks.items() if event.how == "raw" for link in links]
    seen: set[int] = set()
    while programs:
        number = programs.pop()
        if number in seen:
            continue
        seen.add(number)
        for fd in _maps_of_program(_bpf(_PROG_BY_ID, number.to_bytes(4, "little"))):
            name = _info(fd)[24:40].split(b"\0")[0].decode()  # name of struct bpf_map_info
            if name in maps:
                os.close(fd)
            else:
                maps[name] = fd
                programs += _programs_in(fd)
    try:
        yield maps
    finally:
        for fd in maps.values():
            os.close(fd)


class Call(NamedTuple):
    """struct call of bpf/include/calls.h."""

    task: int
    enter_ns: int
    args: tuple[int, ...]
    number: int
    in_flight: int
    claims: int


def calls_of(maps: dict[str, int]) -> list[Call]:
    """The places for calls that were ever taken, and the calls that found theirs taken."""
    found = []
    for value in values_of(maps["calls"]) + values_of(maps["displaced_calls"]):
        if value.strip(b"\0"):
            task, enter_ns, *args, number, in_flight, _, claims = _CALL.unpack(value)
            found.append(Call(task, enter_ns, tuple(args), number, in_flight, claims))
    return found


def values_of(map_fd: int) -> list[bytes]:
    """The values of an array or a hash map, which may change meanwhile."""
    info = _info(map_fd)
    key, value = (ctypes.create_string_buffer(int.from_bytes(info[at : at + 4], "little")) for at in (8, 12))  # key_size, value_size
    then = ctypes.create_string_buffer(len(key))
    found: dict[bytes, bytes] = {}
    previous = 0
    while _bpf(_NEXT_KEY, _words(map_fd, previous, ctypes.addressof(then))) == 0 and then.raw not in found:
        key.raw, previous = then.raw, ctypes.addressof(key)
        found[key.raw] = value.raw if _bpf(_LOOKUP, _words(map_fd, previous, ctypes.addressof(value))) == 0 else b""
    return list(found.values())


def _words(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)
