"""Names of users and groups, from the host's /etc/passwd and /etc/group, read again when they change and never while an event waits."""

from __future__ import annotations

from pathlib import Path


class Names:
    """Number -> name, from one file in the format of passwd(5) and group(5): name, password, number, and so on, with colons between."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._names: dict[int, bytes] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file if it has changed. One that is missing or damaged leaves what was known."""
        try:
            stat = self._path.stat()
            if (stamp := (stat.st_mtime_ns, stat.st_size)) == self._stamp:
                return
            content = self._path.read_bytes()
        except OSError:
            return
        self._stamp, self._names = stamp, {}
        for line in content.splitlines():
            fields = line.split(b":")
            if len(fields) > 2 and fields[2].isdigit() and len(fields[2]) <= 10:
                self._names.setdefault(int(fields[2]), fields[0])

    def name(self, number: int) -> bytes:
        """The name, or the number in digits when it has none."""
        return self._names.get(number) or str(number).encode()
