"""A unix socket in front of another, whose answers can be held back: to who uses it, a service that hangs for a while."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self


class Held:
    """Listens at `path`, and passes everything on to what listens at `behind` and back. A context manager."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path, self._behind = path, behind
        self._open = threading.Event()
        self._open.set()
        self._server = socket.socket(socket.AF_UNIX)
        self._ends: list[socket.socket] = [self._server]

    def hold(self) -> None:
        """No more answers, until `let_go`; nothing is lost."""
        self._open.clear()

    def let_go(self) -> None:
        """What was held back, and all that comes."""
        self._open.set()

    def __enter__(self) -> Self:
        self._server.bind(str(self.path))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.let_go()
        for end in self._ends:
            end.close()
        self.path.unlink()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            service = socket.socket(socket.AF_UNIX)
            service.connect(str(self._behind))
            self._ends += [client, service]
            for source, target, held in ((client, service, False), (service, client, True)):
                threading.Thread(target=self._pass_on, args=(source, target, held), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, held: bool) -> None:
        try:
            while said := source.recv(1 << 16):
                if held:
                    self._open.wait()
                target.sendall(said)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass
