"""Checks whether a `study.db` belongs to autotune, without changing it and without Optuna."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

STUDY_NAME = "autotune"
"""Name of the one study in a database."""
_SHOWN = 3
_TABLES = frozenset(
    {
        "alembic_version",
        "studies",
        "study_directions",
        "study_system_attributes",
        "study_user_attributes",
        "trial_heartbeats",
        "trial_intermediate_values",
        "trial_params",
        "trial_system_attributes",
        "trial_user_attributes",
        "trial_values",
        "trials",
        "version_info",
    }
)
"""Optuna's. A session that was killed while it made them has left only some."""


def whose(path: Path) -> str | None:
    """What shows that the database at `path` does not belong to autotune; None if nothing does. A file that is not a
    readable database gives None: the code that opens it reports why."""
    try:
        with closing(_to_look_at(path)) as connection:
            tables = _tables(connection)
            others = sorted(tables - _TABLES)
            if others:
                return f"it holds {', '.join(others[:_SHOWN])}"
            names = {str(name) for (name,) in connection.execute("select study_name from studies")} if tables else set()
    except sqlite3.Error:
        return None
    others = sorted(names - {STUDY_NAME})
    return f"it holds Optuna's study {others[0]}" if others else None


def is_unlabelled(path: Path) -> bool:
    """Whether the database at `path` holds trials and does not say what they measured: autotune writes that before the
    first trial. A file that is not a readable database gives False."""
    queries = "select count(*) from trials", "select count(*) from study_user_attributes where key = 'identity'"
    try:
        with closing(_to_look_at(path)) as connection:
            trials, labels = (connection.execute(query).fetchone()[0] for query in queries)
    except sqlite3.Error:
        return False
    return bool(trials and not labels)


def is_empty(path: Path) -> bool:
    """Whether there is a database without tables at `path`."""
    try:
        with closing(_to_look_at(path)) as connection:
            return not _tables(connection)
    except sqlite3.Error:
        return False


def _tables(connection: sqlite3.Connection) -> set[str]:
    """Names of tables, and of views and triggers, which contain code; Optuna's databases have none of these."""
    names = connection.execute("select name from sqlite_master where type <> 'index' and name not like 'sqlite_%'")
    return {str(name) for (name,) in names}


def _to_look_at(path: Path) -> sqlite3.Connection:
    """A read-only connection. The last changes of a killed session may be only in the log next to the database; without
    a log, SQLite writes nothing there."""
    log = path.with_name(f"{path.name}-wal")
    has_log = log.exists() and log.stat().st_size > 0
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro{'' if has_log else '&immutable=1'}", uri=True)
