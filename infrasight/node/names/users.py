"""Names of users and groups in the node's own mount namespace, from /etc/passwd and /etc/group, read again when they change and never while
an event waits."""

from __future__ import annotations

from pathlib import Path


def parsed(content: bytes, most: int | None = None, longest: int | None = None) -> dict[int, bytes]:
    """Number -> name, from the content of such a file: of a number the first name, of all the first `most`, and of each `longest` bytes. What is
    empty, or all digits and so looks like another's number, is no name, nor is one that begins as remarks and entries for NIS do."""
    names: dict[int, bytes] = {}
    for line in content.splitlines():
        name, _, rest = line.lstrip().partition(b":")
        number = rest.partition(b":")[2].partition(b":")[0]
        if number.isdigit() and len(number) <= 10 and name and not name.isdigit() and name[:1] not in b"#+-":
            names.setdefault(int(number), name[:longest])
            if len(names) == most:
                break
    return names


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
        self._stamp, self._names = stamp, parsed(content)

    def name(self, number: int) -> bytes:
        """The name, or the number in digits when it has none."""
        return self._names.get(number) or str(number).encode()
