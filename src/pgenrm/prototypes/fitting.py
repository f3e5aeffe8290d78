"""From users and their analyses to fitted prototypes: embed, cluster, refine."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pgenrm.attributes.scenario import classify
from pgenrm.errors import InputError
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.clustering import Floats, choose_k, kmeans, nearest, retained_variance
from pgenrm.prototypes.embedder import Embedder
from pgenrm.prototypes.refine import Choices, Epoch, RefinementConfig, refine
from pgenrm.prototypes.state import Rows, State, means_of, sole_users
from pgenrm.seeding import derive_seed
from pgenrm.types import Preference, User

Progress = Callable[[str, int, int], None]
"""Is told (what is being done, how many are done, of how many)."""

EMBEDDED_AT_ONCE: Final = 1024
VALIDATION_SHARE: Final = 0.1
"""Of the users, held out for the early stopping of the refinement."""
UNIT_TOLERANCE: Final = 1e-3


def fit_state(
    users: Sequence[User],
    analyses: Sequence[Analysis],
    embedder: Embedder,
    *,
    k: int | None,
    refinement: RefinementConfig | None,
    seed: int,
    progress: Progress | None = None,
) -> State:
    """Learn prototypes; `Prototypes.fit` says what from."""
    users = with_analyses(users, analyses)
    if len(users) < (k or 1):
        raise InputError(
            f"{len(users)} users with an analysis are too few for {k or 1} prototypes; "
            "give more users or a lower k"
        )
    texts = [analysis.text for analysis in analyses]
    embeddings = embed(embedder, texts, "embedding analyses", progress)
    rows, _ = Rows.empty(embeddings.shape[1]).with_analyses(analyses, embeddings)
    spectrum = retained_variance(rows.vectors)
    k = k or min(choose_k(spectrum, len(rows.users)), len(users))
    centroids = kmeans(rows.vectors, k, seed)
    state = State(
        embedder=embedder.name,
        prototypes=centroids,
        centroids=centroids,
        means=centroids,
        spectrum=spectrum,
        users={user.id: user for user in users},
        rows=rows,
        assignment=nearest(rows.vectors, centroids),
        owners=(),
        epochs=None,
        scorer=None,
    )
    before = sole_users(rows.users, state.assignment, k)
    if refinement is not None:
        state = _refined(state, embedder, refinement, seed, progress)
    after = sole_users(rows.users, state.assignment, k)
    state = replace(
        state,
        means=means_of(rows.vectors, state.assignment, k),
        owners=tuple(tuple(sorted({*a, *b})) for a, b in zip(before, after, strict=True)),
    )
    return replace(state, fingerprint=state.digest)


def _refined(
    state: State,
    embedder: Embedder,
    config: RefinementConfig,
    seed: int,
    progress: Progress | None,
) -> State:
    """Refine prototypes on the choices of the users who are not held out."""
    choices = [
        (row, number, choice)
        for number, user in enumerate(state.users.values())
        for choice in user.history
        if choice.is_informative and all(text.strip() for text in texts_of(choice))
        if (row := state.rows.place.get((user.id, classify(choice.context)))) is not None
    ]
    texts = [text for _, _, choice in choices for text in texts_of(choice)]
    embeddings = embed(embedder, texts, "embedding choices", progress)
    query, chosen, rejected = (embeddings[i::3] for i in range(3))
    row_of = np.array([row for row, _, _ in choices], np.int64)
    user_of = np.array([number for _, number, _ in choices], np.int64)

    def part(kept: NDArray[np.bool_]) -> tuple[Floats, Choices]:
        return state.rows.vectors[row_of[kept]], Choices(
            query[kept], chosen[kept], rejected[kept], user_of[kept]
        )

    def tell(epoch: Epoch) -> None:
        if progress is not None:
            progress("refining", epoch.epoch, config.max_epochs)

    is_held_out = np.isin(user_of, _held_out(state.user_ids, seed))
    validation = part(is_held_out) if is_held_out.any() else None
    refined = refine(state.centroids, *part(~is_held_out), validation, config, tell)
    return replace(
        state,
        prototypes=refined.prototypes,
        assignment=nearest(state.rows.vectors, refined.prototypes),
        epochs=refined.epochs,
        scorer=refined.scorer,
    )


def _held_out(user_ids: Sequence[str], seed: int) -> list[int]:
    """Draw the users for early stopping; none where there are fewer than ten."""
    order = sorted(
        range(len(user_ids)), key=lambda number: derive_seed("held out", seed, user_ids[number])
    )
    return order[: int(VALIDATION_SHARE * len(user_ids))]


def texts_of(choice: Preference) -> tuple[str, str, str]:
    """Return what is embedded of a choice: last user turn, chosen and rejected response."""
    return choice.context[-1].content, choice.chosen, choice.rejected


def with_analyses(users: Sequence[User], analyses: Sequence[Analysis]) -> list[User]:
    """Return the users that have an analysis.

    Raises:
        InputError: two users share an id, or an analysis belongs to none of them.
    """
    counts = Counter(user.id for user in users)
    for name, n in counts.items():
        if n > 1:
            raise InputError(f"{n} users have the id {name!r}; merge them (see gather_users)")
    owners = {analysis.user_id for analysis in analyses}
    strangers = sorted(owners - counts.keys())
    if strangers:
        raise InputError(f"an analysis is of user {strangers[0]!r}, who is not among the users")
    return [user for user in users if user.id in owners]


def embed(
    embedder: Embedder,
    texts: Sequence[str],
    doing: str = "embedding",
    progress: Progress | None = None,
) -> Floats:
    """Embed texts [n] in slices; returns [n, d].

    Raises:
        InputError: the embedder gives something else than unit vectors, NaN for example.
    """
    parts = []
    for start in range(0, len(texts), EMBEDDED_AT_ONCE):
        some = texts[start : start + EMBEDDED_AT_ONCE]
        vectors = embedder.embed(some)
        if vectors.shape != (len(some), embedder.dimension):
            raise InputError(
                f"embedder {embedder.name!r} gave shape {vectors.shape} for {len(some)} texts and "
                f"dimension {embedder.dimension}"
            )
        lengths = np.linalg.norm(vectors, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < UNIT_TOLERANCE))  # NaN is wrong, too
        if len(wrong):
            raise InputError(
                f"embedder {embedder.name!r} gave a vector of length {lengths[wrong[0]]} instead "
                f"of 1 for text {start + wrong[0]}: {some[wrong[0]][:40]!r}"
            )
        parts.append(np.asarray(vectors, np.float32))
        if progress is not None:
            progress(doing, start + len(some), len(texts))
    return np.concatenate(parts) if parts else np.empty((0, embedder.dimension), np.float32)
