"""The index finds what an exhaustive search in the same prototypes finds."""

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("faiss")
pytest.importorskip("sklearn")

from hypothesis import given
from hypothesis import strategies as st

from pgenrm.prototypes.clustering import nearest, unit
from pgenrm.prototypes.index import NeighbourIndex
from pgenrm.seeding import rng

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def vectors(n: int, *seed: object, d: int = 8) -> Floats:
    return unit(rng("vectors", *seed).standard_normal((n, d)).astype(np.float32))


def exhaustive(
    prototypes: Floats,
    rows: Floats,
    row_user: Ints,
    query: Floats,
    n: int,
    excluded: int | None,
    n_probe: int,
) -> list[tuple[int, int, float]]:
    """List (user, row, similarity) by looking at every row of one prototype after the other."""
    assignment = nearest(rows, prototypes)
    best: dict[int, tuple[float, int]] = {}
    for n_seen, prototype in enumerate(np.argsort(-(prototypes @ query), kind="stable")):
        if n_seen >= n_probe and len(best) >= n:
            break
        for row in np.flatnonzero(assignment == prototype).tolist():
            user, found = int(row_user[row]), (float(rows[row] @ query), row)
            if user != excluded and (user not in best or found > best[user]):
                best[user] = found
    order = sorted(best.items(), key=lambda item: -item[1][0])[:n]
    return [(user, row, similarity) for user, (similarity, row) in order]


def test_no_queries_find_nothing() -> None:
    rows = vectors(3, "rows")
    index = NeighbourIndex(rows[:1], rows, np.arange(3), np.zeros(3, np.int64))
    assert index.search(rows[:0], 2) == []


@given(
    st.integers(0, 10_000),
    st.integers(1, 6),
    st.integers(1, 60),
    st.integers(1, 20),
    st.integers(0, 12),
    st.integers(1, 8),
)
def test_the_index_agrees_with_an_exhaustive_search(
    seed: int, k: int, n_rows: int, n_users: int, n: int, n_probe: int
) -> None:
    prototypes, rows = vectors(k, seed, "k"), vectors(n_rows, seed, "rows")
    row_user = rng("users", seed).integers(n_users, size=n_rows)
    index = NeighbourIndex(prototypes, rows, row_user, nearest(rows, prototypes))
    queries = np.concatenate([vectors(4, seed, "queries"), rows[:1]])
    excluded = [None, 0, 1, n_users - 1, int(row_user[0])]
    found = index.search(queries, n, excluded, n_probe)
    for query, user, hits in zip(queries, excluded, found, strict=True):
        expected = exhaustive(prototypes, rows, row_user, query, n, user, n_probe)
        assert [(hit.user, hit.row) for hit in hits.users] == [e[:2] for e in expected]
        np.testing.assert_allclose(
            [hit.similarity for hit in hits.users], [e[2] for e in expected], atol=1e-5
        )
        assert hits.prototype == nearest(query[None], prototypes)[0]
        assert all(hit.prototype == nearest(rows, prototypes)[hit.row] for hit in hits.users)


def test_a_query_is_answered_alike_alone_and_in_a_batch() -> None:
    prototypes, rows = vectors(5, "k"), vectors(300, "rows")
    index = NeighbourIndex(prototypes, rows, np.arange(300), nearest(rows, prototypes))
    together = index.search(rows[:40], 9)
    alone = [index.search(rows[i : i + 1], 9)[0] for i in range(40)]
    assert together == alone


def test_users_from_other_prototypes_are_counted() -> None:
    prototypes = np.eye(3, 8, dtype=np.float32)
    rows = unit(prototypes[[0, 0, 1, 1, 1]] + 0.01 * vectors(5, "near"))
    index = NeighbourIndex(prototypes, rows, np.arange(5), nearest(rows, prototypes))
    (hits,) = index.search(prototypes[:1], 4)
    assert (len(hits.users), hits.n_outside) == (4, 2)
    (hits,) = index.search(prototypes[:1], 2)
    assert (len(hits.users), hits.n_outside) == (2, 0)


def test_a_prototype_without_members_hands_over_to_the_next() -> None:
    prototypes = np.eye(3, 8, dtype=np.float32)
    rows = unit(prototypes[[0, 1]])
    index = NeighbourIndex(prototypes, rows, np.arange(2), np.array([0, 1]))
    (hits,) = index.search(prototypes[2:], 1)
    assert hits.prototype == 2
    assert (len(hits.users), hits.n_outside) == (1, 1)
