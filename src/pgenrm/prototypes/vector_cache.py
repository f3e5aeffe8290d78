"""A file of embeddings, so that a text is embedded once.

SQLite in WAL mode: several threads and processes of one machine may share a file, and what was
written survives a kill. Texts are stored as digests only. Every call opens the file anew: there is
nothing to close or to carry into a forked process. Deliberately left out: expiry and a size limit.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pgenrm.cache_file import LOCK_TIMEOUT_S, prepare
from pgenrm.errors import InputError

SCHEMA_VERSION = 1
"""Of the table and of what its keys are made of."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS vectors (
    text BLOB NOT NULL,
    model TEXT NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (text, model)
);
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class VectorCache:
    """Vectors by model and text."""

    def __init__(self, path: str | Path) -> None:
        """Open the file, or create it.

        Raises:
            InputError: the file cannot be opened, is damaged, not a cache, or of another version.
                Every method raises the same when that happens later.
        """
        self.path = Path(path)
        with self._opened():
            pass

    def load(self, model: str, texts: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the stored vectors [d] of those texts that have one."""
        query = "SELECT vector FROM vectors WHERE text = ? AND model = ?"
        found = {}
        with self._opened() as database:
            for text in texts:
                row = database.execute(query, (_digest(text), model)).fetchone()
                if row is not None:
                    found[text] = np.frombuffer(row[0], "<f4").astype(np.float32)
        return found

    def store(self, model: str, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Write vectors [d] by text, all or none; what is already stored stays."""
        rows = [(_digest(text), model, v.astype("<f4").tobytes()) for text, v in vectors.items()]
        with self._opened() as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)

    def forget(self, texts: Iterable[str]) -> None:
        """Delete the vectors of these texts, of all models; no byte of them stays in the file.

        The whole file is rewritten, so forget many texts in one call.

        Raises:
            InputError: as above; also where other processes keep reading the file, since what
                they read cannot be overwritten.
        """
        with self._opened() as database:
            with database:
                database.execute("BEGIN IMMEDIATE")
                delete = "DELETE FROM vectors WHERE text = ?"
                database.executemany(delete, [(_digest(text),) for text in texts])
            # A deleted row stays readable in free pages, and even under `secure_delete` in copies
            # that SQLite made when it split a page. Also run when nothing was deleted: an earlier
            # call may have been killed before it came here.
            database.execute("VACUUM")
            (is_busy, *_) = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if is_busy:
            raise InputError(
                f"{self.path} is being read by another process, so that deleted embeddings are "
                "still in the file; close that process and forget them again"
            )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(
                sqlite3.connect(self.path, timeout=LOCK_TIMEOUT_S, isolation_level=None)
            ) as database:
                prepare(database, self.path, _SCHEMA, SCHEMA_VERSION)
                yield database
        except (sqlite3.DatabaseError, OSError) as error:
            raise InputError(
                f"{self.path} cannot be used as a cache of embeddings ({error}); delete it or "
                "name another file"
            ) from error


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
