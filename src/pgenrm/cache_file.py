"""Opening a SQLite file that several threads and processes share as a cache."""

import sqlite3
import time
from pathlib import Path
from typing import Final

from pgenrm.errors import InputError

LOCK_TIMEOUT_S: Final = 60.0


def prepare(database: sqlite3.Connection, path: Path, schema: str, version: int) -> None:
    """Make a new file a cache, or see that it is one, in WAL mode.

    Args:
        database: just opened, in autocommit mode.
        path: to name in errors.
        schema: statements that create the tables where they are missing and set `user_version`.
        version: of the tables, at least 1.

    Raises:
        InputError: the file is something else, or of another version.
    """
    # In this order: another process may create the tables between the two.
    (n_tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    (found,) = database.execute("PRAGMA user_version").fetchone()
    if found == 0 and n_tables:
        raise InputError(f"{path} is a database of something else; name another file")
    if found not in (0, version):
        raise InputError(
            f"{path} is a cache of version {found}, this pgenrm reads version {version}; delete it "
            "or name another file"
        )
    if found == 0:
        _switch_to_wal(database)
        database.executescript(schema)
    database.execute("PRAGMA synchronous = NORMAL")


def _switch_to_wal(database: sqlite3.Connection) -> None:
    """Switch, waiting for others: SQLite's own timeout does not cover this statement."""
    give_up_at = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
