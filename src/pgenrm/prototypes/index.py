"""Similar users inside a prototype: an inverted-file index with the prototypes as its lists.

The search is exact among the rows of the lists that it looks into. Nothing is trained and nothing
is compressed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np

from pgenrm.errors import MissingExtraError
from pgenrm.prototypes.clustering import Floats, Ints

try:
    import faiss
except ImportError as error:
    raise MissingExtraError("prototypes", "the index of neighbours") from error


CHUNK_ROWS: Final = 65_536


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
        assignment = np.asarray(assignment, np.int64)
        self._quantiser: Any = faiss.IndexFlatIP(d)
        self._quantiser.add(prototypes)
        self._lists: Any = faiss.IndexIVFFlat(self._quantiser, d, k, faiss.METRIC_INNER_PRODUCT)
        for start in range(0, len(rows), CHUNK_ROWS):
            chunk = np.ascontiguousarray(rows[start : start + CHUNK_ROWS], np.float32)
            ids = np.arange(start, start + len(chunk), dtype=np.int64)
            lists = assignment[start : start + len(chunk)]
            self._lists.add_core(
                len(chunk), faiss.swig_ptr(chunk), faiss.swig_ptr(ids), faiss.swig_ptr(lists)
            )
        self._has_members = np.bincount(assignment, minlength=k) > 0
        self._most_rows = _most_rows_in_a_list(self._row_user, assignment)

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
        if not len(queries):
            return []
        queries = np.ascontiguousarray(queries, np.float32)
        searches = [_Search(n, user) for user in exclude_user or [None] * len(queries)]
        n_probe = min(n_probe, self._quantiser.ntotal)
        order = self._quantiser.search(queries, n_probe)[1]
        for lists in order.T:
            self._look_into(lists, queries, searches)
        short = [i for i, search in enumerate(searches) if len(search.best) < n]
        if short:
            everything = self._quantiser.search(queries[short], self._quantiser.ntotal)[1]
            for i, lists in zip(short, everything[:, n_probe:], strict=True):
                self._look_further(lists, queries[i : i + 1], searches[i])
        return [
            Hits(int(lists[0]), search.found())
            for lists, search in zip(order, searches, strict=True)
        ]

    def _look_further(self, lists: Ints, query: Floats, search: "_Search") -> None:
        """Look into one list after the other until there are enough users."""
        for one in lists[self._has_members[lists]]:
            if len(search.best) >= search.n:
                return
            self._look_into(np.array([one]), query, [search])

    def _look_into(self, lists: Ints, queries: Floats, searches: Sequence["_Search"]) -> None:
        """Note what list i holds for query i.

        A user has at most `_most_rows` rows in a list, so that so many times n + 1 rows hold n
        users beside the excluded one.
        """
        n_rows = (searches[0].n + 1) * self._most_rows
        nearness = np.zeros((len(queries), 1), np.float32)
        found = self._lists.search_preassigned(queries, n_rows, lists[:, None], nearness)
        for search, prototype, similarities, rows in zip(
            searches, lists.tolist(), *(part.tolist() for part in found), strict=True
        ):
            for similarity, row in zip(similarities, rows, strict=True):
                if row < 0:  # the list is at its end
                    break
                user = int(self._row_user[row])
                search.note(Hit(user, row, min(similarity, 1.0), prototype))


@dataclass
class _Search:
    """A query under way."""

    n: int
    excluded: int | None
    best: dict[int, Hit] = field(default_factory=dict)
    """By user."""

    def note(self, hit: Hit) -> None:
        known = self.best.get(hit.user)
        if hit.user != self.excluded and (known is None or hit.similarity > known.similarity):
            self.best[hit.user] = hit

    def found(self) -> list[Hit]:
        return sorted(self.best.values(), key=lambda hit: (-hit.similarity, hit.row))[: self.n]


def _most_rows_in_a_list(row_user: Ints, assignment: Ints) -> int:
    if not len(row_user):
        return 1
    pairs = row_user * (assignment.max() + 1) + assignment
    return int(np.unique(pairs, return_counts=True)[1].max())
