"""A ClickHouse server of today, on loopback: the one in chDB's library for C, `libchdb.so`, which PyPI's build of chDB does not let listen.

`npm pack @chdb/lib-linux-x64-gnu` gets it (566 MB unpacked), and INFRASIGHT_LIBCHDB says where it is. It is clickhouse-local, told to listen: real
protocols, tables and mutations, in a process of its own; no users, no roles, no TLS and no Keeper.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from tests.ports import free_port

LIBRARY = Path(os.environ.get("INFRASIGHT_LIBCHDB", "/nowhere/libchdb.so"))
_RUN = """
import ctypes, sys
words = [word.encode() for word in ("clickhouse", *sys.argv[2:])]
ctypes.CDLL(sys.argv[1]).chdb_query_cmdline(len(words), (ctypes.c_char_p * len(words))(*words))
"""
_LISTEN = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT sleep(1) FROM system.numbers SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null"
)


class Modern:
    """One server. Its directory and ports stay the same when it is started again."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._native, self._http = directory, free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True)
        self.url = f"clickhouse://default@127.0.0.1:{self._native}/?http_port={self._http}"

    def start(self) -> None:
        """Returns when it answers."""
        ports = [f"--tcp_port={self._native}", f"--http_port={self._http}", "--listen_host=127.0.0.1"]
        command = [sys.executable, "-c", _RUN, str(LIBRARY), f"--path={self._directory}/data", *ports, f"--query={_LISTEN}"]
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{self._http}/ping", timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, (self._directory / "log").read_text()[-2000:]
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def kill(self) -> None:
        """kill -9. Legal twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
