"""What fitted prototypes consist of, as a frozen value; a change of users makes a new one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.spatial.distance import cdist

from pgenrm.errors import InputError
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.clustering import Floats, Ints, nearest, unit
from pgenrm.prototypes.index import NeighbourIndex
from pgenrm.prototypes.refine import Epoch
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.types import User

SHORTEST_SUM: Final = 1e-3
"""A shorter sum of unit vectors is rounding: they cancel out and point nowhere."""
_BUILDING: Final = Lock()
"""Threads that need an index at once wait for one instead of building one each."""


@dataclass(frozen=True)
class Rows:
    """One row per user and scenario; n of them."""

    users: tuple[str, ...]
    """[n], ids."""
    scenarios: tuple[str, ...]
    """[n]."""
    texts: tuple[tuple[str, ...], ...]
    """[n], all analyses of the user in the scenario, the latest last."""
    vectors: Floats
    """[n, d], unit vectors: the directions of the means of the analyses' embeddings."""
    lengths: Floats
    """[n], lengths of the sums of these embeddings, so that the mean can run on."""

    @classmethod
    def empty(cls, dimension: int) -> "Rows":
        """Return no rows."""
        return cls((), (), (), np.empty((0, dimension), np.float32), np.empty(0, np.float32))

    @cached_property
    def place(self) -> dict[tuple[str, str], int]:
        """The row of a user in a scenario."""
        return {key: row for row, key in enumerate(zip(self.users, self.scenarios, strict=True))}

    def with_analyses(
        self, analyses: Sequence[Analysis], embeddings: Floats
    ) -> tuple["Rows", Ints]:
        """Run the means on; new rows come last, in order of appearance.

        Args:
            analyses: m of them.
            embeddings: [m, d], unit vectors.

        Returns:
            All rows, and the indices of those that are new or have moved.

        Raises:
            InputError: the analyses of a user in a scenario cancel out.
        """
        place, texts = dict(self.place), list(self.texts)
        index = np.empty(len(analyses), np.int64)
        for i, analysis in enumerate(analyses):
            row = place.setdefault((analysis.user_id, analysis.scenario), len(place))
            if row == len(texts):
                texts.append(())
            texts[row] += (analysis.text,)
            index[i] = row
        n_before, keys = len(self.users), list(place)
        touched, at = np.unique(index, return_inverse=True)
        sums = np.zeros((len(touched), self.vectors.shape[1]), np.float32)
        known = touched < n_before
        sums[known] = self.vectors[touched[known]] * self.lengths[touched[known], None]
        np.add.at(sums, at, embeddings)
        norms = np.linalg.norm(sums, axis=1)
        for row in touched[norms < SHORTEST_SUM]:
            user, scenario = keys[row]
            raise InputError(
                f"the {scenario} analyses of user {user!r} cancel out, so their mean has no "
                "direction; leave one out"
            )
        vectors = np.empty((len(keys), sums.shape[1]), np.float32)
        lengths = np.empty(len(keys), np.float32)
        vectors[:n_before], lengths[:n_before] = self.vectors, self.lengths
        vectors[touched], lengths[touched] = sums / norms[:, None], norms
        users, scenarios = zip(*keys, strict=True) if keys else ((), ())
        return Rows(users, scenarios, tuple(texts), vectors, lengths), touched

    def only(self, kept: NDArray[np.bool_]) -> "Rows":
        """Return the rows for which `kept` [n] holds."""
        at = np.flatnonzero(kept).tolist()
        return Rows(
            tuple(self.users[i] for i in at),
            tuple(self.scenarios[i] for i in at),
            tuple(self.texts[i] for i in at),
            self.vectors[kept],
            self.lengths[kept],
        )


@dataclass(frozen=True)
class State:
    """Fitted prototypes: k of them, n rows, embeddings of d numbers."""

    embedder: str
    """Name of the embedder that all vectors are from."""
    prototypes: Floats
    """[k, d], unit vectors."""
    centroids: Floats
    """[k, d], unit vectors: the result of K-means, before refinement."""
    means: Floats
    """[k, d], means of the members when fitted, not normalised; drift is measured from here."""
    spectrum: NDArray[np.float64]
    """Share of variance kept by the first 1, 2, ... singular vectors when fitted."""
    users: Mapping[str, User]
    """By id; each has a row."""
    rows: Rows
    assignment: Ints
    """[n], the nearest prototype of every row."""
    owners: tuple[tuple[str, ...], ...]
    """[k], users who alone were the members of a prototype, before or after refinement; mostly
    nobody."""
    epochs: tuple[Epoch, ...] | None
    """Record of the refinement; None without."""
    scorer: PreferenceScorer | None
    fingerprint: str = ""
    """The digest when fitted; stays when users come and go."""

    @property
    def index(self) -> NeighbourIndex:
        """The index of the rows; built when first used, 8 s for a million rows."""
        with _BUILDING:
            return self._index

    @cached_property
    def _index(self) -> NeighbourIndex:
        row_user = np.array([self.number[user] for user in self.rows.users], np.int64)
        return NeighbourIndex(self.prototypes, self.rows.vectors, row_user, self.assignment)

    @cached_property
    def user_ids(self) -> tuple[str, ...]:
        """Ids of the users by their number in the index."""
        return tuple(self.users)

    @cached_property
    def number(self) -> dict[str, int]:
        """Numbers of the users in the index by their id."""
        return {user: number for number, user in enumerate(self.user_ids)}

    @cached_property
    def digest(self) -> str:
        """Fingerprint of all that neighbours depend on."""
        digest = blake2b(self.embedder.encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self.prototypes).data)
        digest.update(np.ascontiguousarray(self.rows.vectors).data)
        for user_id, scenario in self.rows.place:
            digest.update(f"{user_id}\x1f{scenario}\x1e".encode("utf-8", "surrogatepass"))
        for user in self.users.values():
            digest.update(user.model_dump_json().encode())
        return digest.hexdigest()

    def with_users(
        self, users: Sequence[User], analyses: Sequence[Analysis], embeddings: Floats
    ) -> "State":
        """Store users, new or known, with further analyses [m] and their embeddings [m, d]."""
        rows, touched = self.rows.with_analyses(analyses, embeddings)
        assignment = np.empty(len(rows.users), np.int64)
        assignment[: len(self.assignment)] = self.assignment
        assignment[touched] = nearest(rows.vectors[touched], self.prototypes)
        return replace(
            self,
            users={**self.users, **{user.id: user for user in users}},
            rows=rows,
            assignment=assignment,
        )

    def without(self, user_id: str) -> "State":
        """Forget a user, and what was learnt from him alone: that is his vector.

        A prototype that consisted of him goes. One that others have joined since becomes the mean
        of these.
        """
        kept = np.array([user != user_id for user in self.rows.users])
        k, assignment = len(self.prototypes), self.assignment[kept]
        had, has = (np.bincount(a, minlength=k) > 0 for a in (self.assignment, assignment))
        is_his = np.array([user_id in owners for owners in self.owners])
        stays = has | ~(had | is_his)
        rest = replace(
            self,
            users={name: user for name, user in self.users.items() if name != user_id},
            rows=self.rows.only(kept),
            prototypes=self.prototypes[stays],
            centroids=self.centroids[stays],
            means=self.means[stays],
            owners=tuple(self.owners[j] for j in np.flatnonzero(stays)),
            assignment=(stays.cumsum() - 1)[assignment],
        )
        return rest._with_means_of_members(is_his[stays]) if is_his[stays].any() else rest

    def _with_means_of_members(self, anew: NDArray[np.bool_]) -> "State":
        """Put those prototypes for which `anew` [k] holds where their members are now."""
        k = len(self.prototypes)
        means = means_of(self.rows.vectors, self.assignment, k)
        sole = sole_users(self.rows.users, self.assignment, k)
        moved = np.where(anew[:, None], unit(means), self.prototypes)
        return replace(
            self,
            prototypes=moved,
            centroids=np.where(anew[:, None], unit(means), self.centroids),
            means=np.where(anew[:, None], means, self.means),
            owners=tuple(
                b if new else a for a, b, new in zip(self.owners, sole, anew, strict=True)
            ),
            assignment=nearest(self.rows.vectors, moved),
        )

    @cached_property
    def drift(self) -> Floats:
        """How far the means of members have moved since the fit [k].

        In units of the distance to the mean of the nearest other prototype; 0 where a prototype is
        the only one or has no members, then or now.
        """
        k = len(self.prototypes)
        if k == 1:
            return np.zeros(1, np.float32)
        has_members = (np.bincount(self.assignment, minlength=k) > 0) & self.means.any(axis=1)
        moved = np.linalg.norm(means_of(self.rows.vectors, self.assignment, k) - self.means, axis=1)
        apart = cdist(self.means, self.means)
        apart[:, ~has_members] = np.inf
        np.fill_diagonal(apart, np.inf)
        return np.where(has_members, moved / apart.min(axis=1), 0).astype(np.float32)


def sole_users(users: Sequence[str], assignment: Ints, k: int) -> list[tuple[str, ...]]:
    """Return the user whose rows alone are the members of a prototype, for each of k.

    >>> sole_users(("a", "b", "b"), np.array([0, 0, 1]), 3)
    [(), ('b',), ()]
    """
    members: list[set[str]] = [set() for _ in range(k)]
    for user, prototype in zip(users, assignment.tolist(), strict=True):
        members[prototype].add(user)
    return [tuple(some) if len(some) == 1 else () for some in members]


def means_of(vectors: Floats, assignment: Ints, k: int) -> Floats:
    """Return the means [k, d] of the members of every prototype; zeros where there are none."""
    n = len(assignment)
    members = csr_array((np.ones(n, np.float32), (assignment, np.arange(n))), shape=(k, n))
    n_members = np.bincount(assignment, minlength=k).clip(min=1)
    return np.asarray((members @ vectors) / n_members[:, None], np.float32)
