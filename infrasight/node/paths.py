"""Paths, out of what the kernel tells of them: pure functions on single values, called once for each distinct one."""

from __future__ import annotations

from functools import lru_cache


def in_order(names: bytes) -> bytes:
    """An absolute path of names that come the file's own first, each ended by a NUL; empty when there is none."""
    return b"/" + b"/".join(reversed(names.split(b"\0")[:-1])) if names else b""


def joined(base: bytes, path: bytes) -> bytes:
    """Where `path` leads from the absolute path `base`, by name alone: without `.`, `..` and double slashes. Empty when `base` is not known.

    An absolute `path` starts from `base` too: a root directory, out of which no `..` leads.
    """
    absolute = path[:1] == b"/"
    if not absolute and not base:
        return b""
    whole = base + path if absolute else base + b"/" + path
    if _plain(whole):
        return whole
    names = [name for name in base.removeprefix(b"...").split(b"/") if name]
    root = len(names) if absolute else 0
    for name in path.split(b"/"):
        if name == b"..":
            del names[max(root, len(names) - 1) :]
        elif name not in (b"", b"."):
            names.append(name)
    return (b"..." if base.startswith(b"...") else b"") + b"/" + b"/".join(names)


def _plain(path: bytes) -> bool:
    """Whether it is absolute and has no `.`, `..`, double slash or slash at the end, or may have none."""
    return path[:1] == b"/" and b"/." not in path and b"//" not in path and path[-1:] != b"/"


def all_plain(paths: list[bytes]) -> bool:
    """Whether all of them are so: a quick look at all at once."""
    text = b"\0".join([b"", *paths, b""])
    return text.count(b"\0/") == len(paths) and b"/." not in text and b"//" not in text and b"/\0" not in text


@lru_cache(maxsize=256)
def placed(names: bytes, cut: bool) -> bytes:
    """Where a file is that has these names; one in no tree and without a name is nowhere. One that was cut begins with `...`."""
    return b"" if names == b"/\0" else (b"..." if cut else b"") + in_order(names)


WHOLE, CUT, CONFINED = 1, 2, 4
"""Bits of a record's `<path>_whole`: the names are those of the file itself, not of where its path starts; there were more of them; no path that
starts there leads out."""


def resolved(path: bytes, names: bytes, flags: int) -> bytes:
    """Where a path leads: to the file that `names` are of, or from the directory that they are of. One that was cut begins with `...`.

    An absolute path has names only when its caller's root directory is another than the mount namespace's: they are those of that root.
    """
    if not names and not flags & (WHOLE | CONFINED) and _plain(path):
        return path
    start = placed(names, bool(flags & CUT))
    if flags & CONFINED:
        return joined(start, b"/" + path) if start else b""
    return start if flags & WHOLE else joined(start, path) if path or names else b""


def terminal(device: int) -> bytes:
    """What a terminal is called: `pts/3`, `tty1`, `ttyS0`; its numbers where it has no usual name (Documentation/admin-guide/devices.txt)."""
    major, minor = device >> 20, device & 0xFFFFF
    if not device:
        return b""
    if major == 136:
        return b"pts/%d" % minor
    if major == 4:
        return b"tty%d" % minor if minor < 64 else b"ttyS%d" % (minor - 64)
    return b"console" if (major, minor) == (5, 1) else b"%d:%d" % (major, minor)
