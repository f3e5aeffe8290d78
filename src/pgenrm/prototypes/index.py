"""Similar users inside a prototype: an inverted-file index with the prototypes as its lists.

The search is exact among the rows of the lists that it looks into. Nothing is trained and nothing
is compressed.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from pgenrm.errors import MissingExtraError
from pgenrm.prototypes.clustering import Floats, Ints

try:
    import faiss
except ImportError as error:
    raise MissingExtraError("prototypes", "the index of neighbours") from error


CHUNK_ROWS: Final = 65_536
NOBODY: Final = -1


class Hit(NamedTuple):
    """A similar user."""

    user: int
    row: int
    """His row that is most similar to the query."""
    similarity: float
    prototype: int
    """The one that the row belongs to."""


class Hits(NamedTuple):
    """What a query found."""

    prototype: int
    """The nearest one."""
    users: list[Hit]
    """Most similar first, one entry per user."""

    @property
    def n_outside(self) -> int:
        """How many belong to other prototypes than the nearest."""
        return sum(hit.prototype != self.prototype for hit in self.users)


class NeighbourIndex:
    """Finds the most similar users of queries; safe to search from several threads."""

    def __init__(self, prototypes: Floats, rows: Floats, row_user: Ints, assignment: Ints) -> None:
        """Build the index; it keeps a copy of the rows, read in chunks.

        Args:
            prototypes: [k, d], unit vectors.
            rows: [n, d], unit vectors; may be a `np.memmap`.
            row_user: [n], index of the user whose row it is.
            assignment: [n], index of the prototype that it belongs to.
        """
        k, d = prototypes.shape
        self._row_user = np.asarray(row_user, np.int64)
        self._assignment = np.asarray(assignment, np.int64)
        self._quantiser: Any = faiss.IndexFlatIP(d)
        self._quantiser.add(prototypes)
        self._lists: Any = faiss.IndexIVFFlat(self._quantiser, d, k, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = np.ascontiguousarray(rows[start : start + CHUNK_ROWS], np.float32)
            ids = np.arange(start, start + len(chunk), dtype=np.int64)
            lists = self._assignment[start : start + len(chunk)]
            self._lists.add_core(
                len(chunk), faiss.swig_ptr(chunk), faiss.swig_ptr(ids), faiss.swig_ptr(lists)
            )
        self._has_members = np.bincount(self._assignment, minlength=k) > 0
        self._most_rows = _most_rows_in_a_list(self._row_user, self._assignment)

    def search(
        self,
        queries: Floats,
        n: int,
        exclude_user: Sequence[int | None] | None = None,
        n_probe: int = 1,
    ) -> list[Hits]:
        """Return the n most similar users of every query.

        All rows of the `n_probe` nearest prototypes are compared. Where these have fewer than n
        users, the next nearest prototypes with members follow, one at a time.

        Args:
            queries: [b, d], unit vectors.
            n: users wanted; fewer come back where there are no more at all.
            exclude_user: [b], index of the user who must not be found; None finds everybody.
            n_probe: prototypes looked into in any case.
        """
        queries = np.ascontiguousarray(queries, np.float32)
        excluded = [NOBODY if u is None else u for u in exclude_user or [None] * len(queries)]
        n_probe = min(n_probe, self._quantiser.ntotal)
        order = self._quantiser.search(queries, n_probe)[1]
        best: list[dict[int, Hit]] = [{} for _ in queries]
        for column in order.T:
            self._look_into(column, queries, n, best, excluded)
        short = [i for i, found in enumerate(best) if len(found) < n]
        if short:
            self._look_further(short, n_probe, queries, n, best, excluded)
        return [
            Hits(
                int(lists[0]),
                sorted(found.values(), key=lambda hit: (-hit.similarity, hit.row))[:n],
            )
            for lists, found in zip(order, best, strict=True)
        ]

    def _look_further(
        self,
        short: list[int],
        n_probe: int,
        queries: Floats,
        n: int,
        best: list[dict[int, Hit]],
        excluded: list[int],
    ) -> None:
        """Look into further prototypes for the queries that are short of users."""
        order = self._quantiser.search(queries[short], self._quantiser.ntotal)[1]
        for i, lists in zip(short, order, strict=True):
            further = lists[n_probe:]
            for one in further[self._has_members[further]]:
                if len(best[i]) >= n:
                    break
                self._look_into(
                    np.array([one]), queries[i : i + 1], n, best[i : i + 1], excluded[i : i + 1]
                )

    def _look_into(
        self,
        lists: Ints,
        queries: Floats,
        n: int,
        best: list[dict[int, Hit]],
        excluded: list[int],
    ) -> None:
        """Add to `best` what list i holds for query i.

        A user has at most `_most_rows` rows in a list, so that so many times n + 1 rows hold n
        users beside the excluded one.
        """
        n_rows = (n + 1) * self._most_rows
        nearness = np.zeros((len(queries), 1), np.float32)
        similarities, rows = self._lists.search_preassigned(
            queries, n_rows, np.asarray(lists)[:, None], nearness
        )
        for i, (similar, found) in enumerate(
            zip(similarities.tolist(), rows.tolist(), strict=True)
        ):
            for similarity, row in zip(similar, found, strict=True):
                if row < 0:  # the list is at its end
                    break
                user = int(self._row_user[row])
                known = best[i].get(user)
                if user != excluded[i] and (known is None or similarity > known.similarity):
                    best[i][user] = Hit(user, row, min(similarity, 1.0), int(lists[i]))


def _most_rows_in_a_list(row_user: Ints, assignment: Ints) -> int:
    if not len(row_user):
        return 1
    pairs = row_user * (assignment.max() + 1) + assignment
    return int(np.unique(pairs, return_counts=True)[1].max())
