"""In namespaces of its own: a name server on port 53 of the loopback that tells what it was asked, and programs that ask it.

Run as `python name_server.py HOW DIRECTORY`; writes one JSON object to its output: what the server saw, in order, and what else HOW has to say.
"""

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

MSG_WAITFORONE = 0x10000
LIBC = ctypes.CDLL(None, use_errno=True)
ZONE = {b"one.test": [b"\x0a\x00\x00\x01"], b"many.test": [bytes([10, 0, 1, host]) for host in range(1, 4)], b"six.test": []}
SIX = {b"six.test": socket.inet_pton(socket.AF_INET6, "fd00::6")}
seen: list[list[object]] = []


def name_bytes(name: bytes) -> bytes:
    """Labels with their lengths."""
    return b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0" if name else b"\0"


def query(number: int, name: bytes, qtype: int, more: bytes = b"") -> bytes:
    """A question."""
    return struct.pack(">6H", number, 0x0100, 1, 0, 0, 0) + name_bytes(name) + struct.pack(">HH", qtype, 1) + more


def answer(asked: bytes) -> bytes:
    """What the zone has: an alias first, then addresses of what it stands for."""
    end = asked.index(b"\0", 12) + 5
    labels, at = [], 12
    while asked[at]:
        labels.append(asked[at + 1 : at + 1 + asked[at]])
        at += 1 + asked[at]
    name, qtype = b".".join(labels).lower(), int.from_bytes(asked[end - 4 : end - 2], "big")
    found = ZONE.get(name, []) if qtype == 1 else [SIX[name]] if qtype == 28 and name in SIX else []
    records = [b"\xc0\x0c" + struct.pack(">HHIH", 5, 1, 60, 7) + b"\x05alias\0"] if found else []
    alias = struct.pack(">H", 0xC000 | end + 12)
    records += [alias + struct.pack(">HHIH", qtype, 1, 60, len(each)) + each for each in found]
    rcode = 0 if name in ZONE else 3
    seen.append([int.from_bytes(asked[:2], "big"), name.decode(), qtype, rcode, [socket.inet_ntop(2 if qtype == 1 else 10, each) for each in found]])
    return asked[:2] + struct.pack(">5H", 0x8180 | rcode, 1, len(records), 0, 0) + asked[12:end] + b"".join(records)


def serve(server: socket.socket) -> None:
    while True:
        asked, client = server.recvfrom(4096)
        if asked[2] >> 7 or asked[4:6] != b"\0\x01":
            continue
        try:
            server.sendto(answer(asked), client)
        except ValueError:
            server.sendto(asked[:2] + b"\x81\x81" + asked[4:], client)


class Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class Mmsghdr(ctypes.Structure):
    _fields_ = (("header", Msghdr), ("length", ctypes.c_uint))


def address(host: str, port: int = 53) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("<H", socket.AF_INET) + struct.pack(">H", port) + socket.inet_aton(host) + bytes(8)


def headers(messages: list[bytes], to: bytes | None) -> ctypes.Array[Mmsghdr]:
    made = (Mmsghdr * len(messages))()
    for each, message in zip(made, messages, strict=True):
        each.header = Msghdr(to, len(to or b""), ctypes.pointer(Iovec(message, len(message))), 1, None, 0, 0)
    return made


def sendmmsg(fd: int, messages: list[bytes], to: bytes | None = None) -> int:
    """How many were sent, or a negative errno."""
    ret = int(LIBC.sendmmsg(fd, headers(messages, to), len(messages), 0))
    return ret if ret >= 0 else -ctypes.get_errno()


def recvmmsg(fd: int, count: int) -> int:
    """How many were received; waits for one and takes what else is there."""
    room, name = [bytes(600) for _ in range(count)], bytes(28)
    return int(LIBC.recvmmsg(fd, headers(room, name), count, MSG_WAITFORONE, None))


def every_call() -> dict[str, object]:
    """By hand: told are the queries that `told` has, as [id, name, qtype, ret], and the answers to those that got one."""
    told, answers = [], []
    local, away = ("127.0.0.1", 53), ("192.0.2.1", 53)
    with socket.socket(type=socket.SOCK_DGRAM) as free, socket.socket(type=socket.SOCK_DGRAM) as tied, socket.socket(type=socket.SOCK_DGRAM) as blind:
        tied.connect(local)
        told.append([1, "one.test", 1, free.sendto(query(1, b"one.test", 1), local)])
        answers.append([1, len(free.recvfrom(4096)[0])])
        told.append([2, "one.test", 1, tied.send(query(2, b"OnE.tEsT", 1))])
        answers.append([2, len(tied.recv(4096))])
        told.append([3, "many.test", 1, free.sendmsg([query(3, b"many.test", 1)], [], 0, local)])
        answers.append([3, len(free.recvmsg(4096)[0])])
        told.append([4, "six.test", 28, tied.sendmsg([query(4, b"six.test", 28)])])
        answers.append([4, len(tied.recvmsg(4096)[0])])
        told.append([5, "no.test", 15, tied.send(query(5, b"no.test", 15))])
        tied.recv(4096, socket.MSG_PEEK)  # not told
        answers.append([5, len(tied.recv(4096))])
        for first, count in ((10, 1), (20, 3), (30, 11)):
            many = [query(first + turn, b"one.test", 1 if turn % 2 else 28) for turn in range(count)]
            ret = sendmmsg(tied.fileno(), many) if count == 3 else sendmmsg(free.fileno(), many, address("127.0.0.1"))
            told += [[first + turn, "one.test", 1 if turn % 2 else 28, ret] for turn in range(min(count, 8))]
            got = 0
            while got < count:
                took = recvmmsg((tied if count == 3 else free).fileno(), 8)
                answers += [[first + got + turn, took] for turn in range(took)]
                got += took
        # What others send in one call: the second is a query, the first is not.
        told.append([41, "one.test", 1, sendmmsg(tied.fileno(), [b"x" * 40, query(41, b"one.test", 1)])])
        answers.append([41, len(tied.recv(4096))])
        try:
            free.sendto(query(50, b"unreachable.test", 1), away)
        except OSError as error:
            told.append([50, "unreachable.test", 1, -error.errno])
        told.append([51, "unreachable.test", 1, sendmmsg(free.fileno(), [query(51, b"unreachable.test", 1)] * 3, address("192.0.2.1"))])
        told.append([52, "", 0, tied.send(query(52, b"", 1)[:12] + b"\x50" + b"a" * 20)])
        answers.append([52, len(tied.recv(4096))])
        for number, host in ((53, "::1"), (54, "::ffff:127.0.0.1")):
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
                told.append([number, ".", 255, six.sendto(query(number, b"", 255)[:12] + b"\0\0\xff\0\1", (host, 53))])
        # Without a call of its own for sockets.
        told.append([70, "one.test", 1, os.write(tied.fileno(), query(70, b"one.test", 1))])
        answers.append([70, len(os.read(tied.fileno(), 4096))])
        told.append([71, "six.test", 28, os.writev(tied.fileno(), [query(71, b"six.test", 28), b"!"])])
        answers.append([71, os.readv(tied.fileno(), [bytearray(512), bytearray(512)])])
        with socket.socket(type=socket.SOCK_DGRAM) as refused:
            refused.connect(("127.0.0.2", 53))
            told.append([72, "one.test", 1, os.write(refused.fileno(), query(72, b"one.test", 1))])
            try:
                os.write(refused.fileno(), query(73, b"one.test", 1))
            except OSError as error:
                told.append([73, "one.test", 1, -error.errno])
        # None of these is told.
        blind.sendto(query(60, b"port.test", 1), ("127.0.0.1", 54))
        tied.send(b"\0" * 16)
        tied.send(bytearray(query(61, b"one.test", 1))[:2] + b"\x81" + query(61, b"one.test", 1)[3:])
        free.sendto(query(62, b"two.questions.test", 1)[:5] + b"\x02" + query(62, b"two.questions.test", 1)[6:], ("127.0.0.1", 54))
        with socket.socket(type=socket.SOCK_DGRAM) as other, open("/dev/null", "wb", 0) as file:
            other.connect(("127.0.0.1", 54))
            os.write(other.fileno(), query(63, b"port.test", 1))
            file.write(query(64, b"file.test", 1))
    return {"told": told, "answers": answers}


def ask_with_libc() -> dict[str, object]:
    """By getaddrinfo, in a program of its own, which then connects."""
    program = "import json, os, socket, sys\n" + "\n".join(
        [
            "told = []",
            "for name, family in (('one.test', 0), ('many.test', 2), ('six.test', 10), ('no.test', 0)):",
            "    try: found = sorted({each[4][0] for each in socket.getaddrinfo(name, 80, family, socket.SOCK_DGRAM)})",
            "    except OSError: found = []",
            "    told.append([name, found])",
            "    for host in found:",
            "        with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, socket.SOCK_DGRAM) as client:",
            "            client.connect_ex((host, 80))",
            "print(json.dumps([os.getpid(), told]))",
        ]
    )
    asked = subprocess.run([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE, check=True, text=True)
    pid, told = json.loads(asked.stdout)
    return {"pid": pid, "told": told}


def alone(directory: Path) -> None:
    """A network and a mount namespace with nothing but a loopback and our own idea of who resolves names."""
    assert LIBC.unshare(0x40000000 | 0x20000) == 0
    LIBC.mount(None, b"/", None, 0x4000 | 0x40000, None)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for name, content in (("resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:1\n"), ("nsswitch.conf", "hosts: dns\n")):
        (directory / name).write_text(content)
        target = os.fsencode(os.path.realpath(f"/etc/{name}"))
        assert LIBC.mount(os.fsencode(directory / name), target, None, 0x1000, None) == 0


def main() -> None:
    how, directory = sys.argv[1:]
    alone(Path(directory))
    server = socket.socket(type=socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 53))
    threading.Thread(target=serve, args=(server,), daemon=True).start()
    said = {"every_call": every_call, "libc": ask_with_libc}[how]()
    os.write(1, json.dumps({"seen": seen, "pid": os.getpid()} | said).encode())
    os._exit(0)


if __name__ == "__main__":
    main()
