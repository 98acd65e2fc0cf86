"""From a URL to an engine."""

from __future__ import annotations

import re

from infrasight.errors import StoreError
from infrasight.schema.retention import Retention
from infrasight.store.addresses import FORM, parse, without_secrets
from infrasight.store.interface import Store

_EMBEDDED = re.compile(r"chdb:///+(?P<path>[^/].*)")
_UNSAFE = re.compile(r"[?&%+=#]|[\x00-\x1f\x7f]")
"""What chDB's connection string gives a meaning of its own."""


def open_store(url: str, retention: Retention = Retention()) -> Store:  # noqa: B008 - frozen
    """The store at `chdb:///absolute/directory` or `clickhouse://user@host:port/`, not opened yet, which keeps rows as `retention` says.

    Raises StoreError for any other URL.
    """
    if url.startswith("clickhouse://"):
        address = parse(url)
        from infrasight.store.server import ServerStore  # so that who has chDB does not load asynch

        return ServerStore(address, retention)
    match = _EMBEDDED.fullmatch(url)
    if not match:
        raise StoreError(f"store {without_secrets(url)!r}: expected chdb:///absolute/directory or {FORM}")
    path = "/" + match["path"]
    if _UNSAFE.search(path):
        raise StoreError(f"store {url!r}: the directory's name must do without ? & % + = # and control characters")
    from infrasight.store.embedded import EmbeddedStore  # importing chDB takes 0.6 s and 200 MB, so only who opens one does

    return EmbeddedStore(path, retention)
