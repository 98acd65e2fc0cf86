"""A session with every right in a chDB of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infrasight.store.engine import Session
from infrasight.store.settings import ENGINE_XML, USERS_XML


@contextmanager
def session(directory: Path, more_xml: str = "") -> Iterator[Session]:
    """On what `open_store(f"chdb://{directory}")` has; `more_xml` is configuration besides ours."""
    directory.mkdir(exist_ok=True)
    (directory / "engine.xml").write_text(ENGINE_XML.replace("</clickhouse>", more_xml + "</clickhouse>"))
    (directory / "users.xml").write_text(USERS_XML)
    session = Session(directory / "clickhouse", directory / "engine.xml")
    session.execute("SET ROLE writer")
    try:
        yield session
    finally:
        session.close()
