"""The original's tables as views, made and kept as declared. What somebody else has under their names is left alone: it may be the original's own."""

from __future__ import annotations

import logging

from infrasight.schema.ddl import text
from infrasight.schema.original import MARK, ORIGINAL_DATABASE, VIEWS, original_database_ddl
from infrasight.store.session import EngineError, Rows

log = logging.getLogger(__name__)


def make_views(session: Rows, cluster: str = "") -> list[str]:
    """Make what is missing or not as declared; the statements that were needed. A database that does not let us is warned about and goes without."""
    try:
        statements = _needed(session, cluster)
        for statement in statements:
            session.execute(statement)
    except EngineError as error:
        log.warning("the original's tables are not there as views of the database %s: %s", ORIGINAL_DATABASE, " ".join(str(error).split())[:300])
        return []
    return statements


def _needed(session: Rows, cluster: str) -> list[str]:
    there = session.rows(f"SELECT name FROM system.databases WHERE name = {text(ORIGINAL_DATABASE)}")
    statements = [] if there else [original_database_ddl(cluster)]
    ours = f"engine = 'View' AND startsWith(comment, {text(MARK)})"
    names = ", ".join(text(view.name) for view in VIEWS)
    found = session.rows(
        f"SELECT name, if({ours}, comment, '') FROM system.tables WHERE database = {text(ORIGINAL_DATABASE)} AND name IN ({names})"
    )
    comments: dict[str, str] = dict(found)  # pairs
    for view in VIEWS:
        comment = comments.get(view.name)
        if comment is None:
            statements.append(view.ddl(cluster=cluster))
        elif not comment:
            log.warning("%s.%s is not a view of ours: left as it is", ORIGINAL_DATABASE, view.name)
        elif comment != view.comment:
            statements.append(view.ddl("CREATE OR REPLACE VIEW", cluster))
    return statements
