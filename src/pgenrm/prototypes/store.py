"""User prototypes and who is similar to whom (paper, sections 3.3 and 3.4).

`Prototypes` learns prototypes from users' analyses, keeps them up to date, finds neighbours and is
saved to a directory. Its parts: `fitting.py` with `clustering.py` and `refine.py`, `state.py`,
`index.py` and `store_files.py`. Deliberately left out: a server, and changes from several threads.
"""

import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pgenrm.errors import DriftWarning, InputError
from pgenrm.history import draw_pairs
from pgenrm.neighbours import Neighbour, Neighbourhood, NeighbourQuery
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.clustering import Floats, Ints, nearest, unit
from pgenrm.prototypes.embedder import Embedder
from pgenrm.prototypes.fitting import Progress, embed, fit_state, texts_of, with_analyses
from pgenrm.prototypes.index import Hits
from pgenrm.prototypes.refine import Epoch, RefinementConfig
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.prototypes.state import State
from pgenrm.prototypes.store_files import Settings, load, save
from pgenrm.seeding import derive_seed
from pgenrm.types import User

MAX_DRIFT: Final = 0.25
"""Mean of `drift_` over the rows from which on a warning is given [ours].

The border lies half-way to the next mean, so that rows near it are then on the wrong side. Measured
on groups of points: when users of the same kind tripled a store, it stayed below 0.23 with 10 rows
to a prototype and below 0.16 with 20 and more. When the tastes of half of the users or more had
turned by 45 degrees and more, it was 0.2 to 0.5, and of the 8 most similar users the share found in
one's own prototype fell from 0.98 to as little as 0.72.
"""
DEFAULT_REFINEMENT: Final = RefinementConfig()


class Prototypes:
    """User prototypes, and a `NeighbourSource`.

    A *row* is one user in one scenario: the running mean of the embeddings of his analyses there.
    Finding neighbours is safe from several threads at once, also while another one changes users.

    Fitted attributes: `prototypes_`, `centroids_`, `assignment_`, `rows_`, `row_users_`,
    `row_scenarios_`, `row_texts_`, `users_`, `spectrum_`, `refinement_`, `scorer_`, `drift_`.
    """

    def __init__(
        self,
        embedder: Embedder,
        k: int | None = None,
        *,
        refinement: RefinementConfig | None = DEFAULT_REFINEMENT,
        n_history: int | None = 3,
        n_probe: int = 1,
        seed: int = 0,
    ) -> None:
        """Set up; nothing is loaded or embedded yet.

        Args:
            embedder: turns analyses, queries and responses into vectors.
            k: number of prototypes; None takes the knee of the retained variance (`choose_k`).
            refinement: settings of the refinement on past choices; None leaves it out.
            n_history: pairs of a neighbour that are shown, drawn by (seed, his id) and so the same
                for whoever asks; None shows all.
            n_probe: prototypes in which neighbours are looked for; the paper looks into one.
            seed: fixes clustering, held-out users and drawn pairs.

        Raises:
            ValueError: a count is below its minimum.
        """
        if (k is not None and k < 1) or n_probe < 1 or (n_history is not None and n_history < 0):
            raise ValueError(
                f"k and n_probe must be 1 or more and n_history 0 or more, found k={k}, "
                f"n_probe={n_probe}, n_history={n_history}"
            )
        self.embedder = embedder
        self.k = k
        self.refinement = refinement
        self.n_history = n_history
        self.n_probe = n_probe
        self.seed = seed
        self._fitted: State | None = None

    # ---------------------------------------------------------------- learning

    def fit(
        self,
        users: Sequence[User],
        analyses: Iterable[Analysis],
        progress: Progress | None = None,
    ) -> Self:
        """Learn prototypes from users and their analyses, as `analyses_of` gives them.

        Rows are clustered by K-means; then, unless `refinement` is None, prototypes are refined on
        the users' past choices, with a tenth of the users held out for early stopping. A choice
        belongs to the row of its user in the scenario of its context; of a context the last user
        turn is embedded [ours]. Choices between equal or blank texts, and those in a scenario
        without an analysis, are left out of the refinement. Users without any analysis are not
        stored.

        Raises:
            InputError: two users share an id, an analysis belongs to none of them, there are no
                analyses or fewer users than k, or an embedding is not a unit vector.
        """
        self._fitted = fit_state(
            users,
            list(analyses),
            self.embedder,
            k=self.k,
            refinement=self.refinement,
            seed=self.seed,
            progress=progress,
        )
        return self

    def transform(self, texts: Sequence[str]) -> tuple[Ints, Floats]:
        """Return the nearest prototype [n] of analyses and the cosine to it [n]."""
        vectors = embed(self.embedder, texts)
        prototypes = self._state.prototypes
        found = nearest(vectors, prototypes)
        return found, np.einsum("nd,nd->n", vectors, prototypes[found])

    # ---------------------------------------------------------------- neighbours

    @property
    def name(self) -> str:
        """Fingerprints of what was fitted, and of everything that neighbours depend on."""
        found = derive_seed(self._state.digest, self.n_history, self.n_probe, self.seed)
        return f"prototypes:{self._state.fingerprint}/{found:016x}"

    def knows(self, user_id: str, scenario: str) -> bool:
        """Say whether the user has a row in this scenario."""
        return (user_id, scenario) in self._state.rows.place

    def find(self, queries: Sequence[NeighbourQuery]) -> list[Neighbourhood]:
        """Return the most similar users of the nearest prototype, one neighbourhood per query.

        A query is placed by the mean of its analyses, or where it has none by the user's row. Where
        the `n_probe` nearest prototypes have fewer than n users, the next ones follow. Similarity
        is that of the neighbour's most similar row, whatever its scenario.

        Raises:
            InputError: a query without analyses about a user who has no row in its scenario.
        """
        state = self._state
        vectors = self._query_vectors(state, queries)
        found: list[Neighbourhood] = [Neighbourhood(0, ())] * len(queries)
        by_n: dict[int, list[int]] = defaultdict(list)
        for i, query in enumerate(queries):
            by_n[query.n].append(i)
        for n, at in by_n.items():
            excluded = [state.number.get(queries[i].user_id) for i in at]
            hits = state.index.search(vectors[at], n, excluded, self.n_probe)
            for i, one in zip(at, hits, strict=True):
                found[i] = self._neighbourhood(state, one)
        return found

    def _query_vectors(self, state: State, queries: Sequence[NeighbourQuery]) -> Floats:
        vectors = np.empty((len(queries), state.prototypes.shape[1]), np.float32)
        for i, query in enumerate(queries):
            if query.analyses:  # one text at a time: others beside it would move its last digits
                embedded = [embed(self.embedder, [text]) for text in query.analyses]
                vectors[i] = np.concatenate(embedded).mean(axis=0)
            elif (row := state.rows.place.get((query.user_id, query.scenario))) is not None:
                vectors[i] = state.rows.vectors[row]
            else:
                raise InputError(
                    f"user {query.user_id!r} has no row in scenario {query.scenario!r}; "
                    "give at least one of his analyses with the query"
                )
        return unit(vectors)

    def _neighbourhood(self, state: State, hits: Hits) -> Neighbourhood:
        neighbours = tuple(
            Neighbour(self._shown(state.users[state.user_ids[hit.user]]), hit.similarity)
            for hit in hits.users
        )
        return Neighbourhood(hits.prototype, neighbours, hits.n_outside)

    def _shown(self, user: User) -> User:
        """Draw the pairs of a neighbour that are shown, by (seed, his id)."""
        if self.n_history is None:
            return user
        return draw_pairs(user, self.n_history, self.seed, user.id)

    # ---------------------------------------------------------------- life

    def add_users(self, users: Sequence[User], analyses: Iterable[Analysis]) -> None:
        """Add users without fitting again: their rows go to the nearest prototypes.

        Raises:
            InputError: a user is stored already or named twice, or an analysis is of none of them.
        """
        analyses = list(analyses)
        stored = with_analyses(users, analyses)
        known = [user.id for user in stored if user.id in self._state.users]
        if known:
            raise InputError(f"user {known[0]!r} is stored already; use update_user")
        self._change(stored, analyses)

    def update_user(self, user: User, analyses: Iterable[Analysis]) -> None:
        """Replace what is known about a user, and run the means of his rows on.

        Raises:
            InputError: he is not stored, or an analysis is of somebody else.
        """
        before = self._state.users.get(user.id)
        if before is None:
            raise InputError(f"user {user.id!r} is not stored; use add_users")
        analyses = list(analyses)
        with_analyses([user], analyses)
        self._forget(_choice_texts(before) - _choice_texts(user))
        self._change([user], analyses)

    def remove_user(self, user_id: str) -> None:
        """Forget a user: his rows and texts here, in the index and in the embedder's cache.

        The files follow with the next `save`; a cache of embeddings that the embedder was not
        given, and a page that was plotted, are yours to delete. A prototype that was learnt from
        him alone goes too, and later ones move up by one; if others have joined it, it becomes
        their mean. What was learnt from many users together stays until the next `fit`.

        Raises:
            InputError: he is not stored, or he is the only one; or his texts cannot be taken out
                of the cache, and then he is still stored.
        """
        state = self._state
        user = state.users.get(user_id)
        if user is None:
            raise InputError(f"user {user_id!r} is not stored; nothing was removed")
        if len(state.users) == 1:
            raise InputError(f"user {user_id!r} is the only one; delete the directory instead")
        analyses = [
            text
            for owner, texts in zip(state.rows.users, state.rows.texts, strict=True)
            if owner == user_id
            for text in texts
        ]
        self._forget({*analyses, *_choice_texts(user)})
        self._fitted = state.without(user_id)

    def _change(self, users: Sequence[User], analyses: Sequence[Analysis]) -> None:
        embeddings = embed(self.embedder, [a.text for a in analyses])
        self._fitted = self._state.with_users(users, analyses, embeddings)
        drift = float(self.drift_[self.assignment_].mean())
        if drift > MAX_DRIFT:
            warnings.warn(
                f"since the fit, prototypes have drifted by {drift:.2f} of the distance to the "
                f"next one, on average over the rows (more than {MAX_DRIFT}); fit again",
                DriftWarning,
                stacklevel=3,
            )

    def _forget(self, texts: Iterable[str]) -> None:
        forget = getattr(self.embedder, "forget", None)
        if forget is not None:
            forget(sorted(texts))

    # ---------------------------------------------------------------- files

    def save(self, directory: str | Path) -> None:
        """Write everything to a directory; at any moment it holds the old or the new state whole.

        Of an older state nothing is left. The embedder and its cache are not part of it.
        """
        save(Path(directory), self._state, self._settings)

    @classmethod
    def load(cls, directory: str | Path, embedder: Embedder) -> Self:
        """Read prototypes that were saved.

        Raises:
            InputError: there are none, a file is damaged or missing, or the embedder is not the
                one that they were fitted with.
        """
        state, settings = load(Path(directory))
        if state.embedder != embedder.name:
            raise InputError(
                f"{directory} was fitted with the embedder {state.embedder!r}, not "
                f"{embedder.name!r}; use that one or fit again"
            )
        loaded = cls(embedder, **dict(settings))
        loaded._fitted = state
        return loaded

    @property
    def _settings(self) -> Settings:
        return Settings(
            k=self.k,
            refinement=self.refinement,
            n_history=self.n_history,
            n_probe=self.n_probe,
            seed=self.seed,
        )

    # ---------------------------------------------------------------- what was learnt

    @property
    def _state(self) -> State:
        if self._fitted is None:
            raise InputError("these prototypes are not fitted; call fit, or load saved ones")
        return self._fitted

    @property
    def prototypes_(self) -> Floats:
        """[k, d], unit vectors."""
        return self._state.prototypes

    @property
    def centroids_(self) -> Floats:
        """[k, d], unit vectors: where K-means put the prototypes, before refinement."""
        return self._state.centroids

    @property
    def rows_(self) -> Floats:
        """[n, d], unit vectors."""
        return self._state.rows.vectors

    @property
    def assignment_(self) -> Ints:
        """[n], the nearest prototype of every row."""
        return self._state.assignment

    @property
    def row_users_(self) -> Sequence[str]:
        """[n], ids."""
        return self._state.rows.users

    @property
    def row_scenarios_(self) -> Sequence[str]:
        """[n]."""
        return self._state.rows.scenarios

    @property
    def row_texts_(self) -> Sequence[str]:
        """[n], the latest analysis of every row."""
        return tuple(texts[-1] for texts in self._state.rows.texts)

    @property
    def users_(self) -> Mapping[str, User]:
        """By id, with whole histories."""
        return self._state.users

    @property
    def spectrum_(self) -> NDArray[np.float64]:
        """[min(n, d)], share of variance kept by the first 1, 2, ... singular vectors."""
        return self._state.spectrum

    @property
    def refinement_(self) -> tuple[Epoch, ...] | None:
        """Record of the refinement, epoch by epoch; None without."""
        return self._state.epochs

    @property
    def scorer_(self) -> PreferenceScorer | None:
        """What the refinement learnt beside the prototypes; None without."""
        return self._state.scorer

    @property
    def drift_(self) -> Floats:
        """[k], how far members have moved since the fit; see `State.drift`."""
        return self._state.drift


def _choice_texts(user: User) -> set[str]:
    """Return what may have been embedded of a user's history."""
    return {text for choice in user.history for text in texts_of(choice)}
