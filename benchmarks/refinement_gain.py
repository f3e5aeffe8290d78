"""Where the gain of the refinement is: in the moved prototypes, or in the scorer learnt with them.

Prototypes are fitted on the choices of users of a simulated world. Choices of other users are then
ranked by their margin (`pgenrm.prototypes.scorer`), under centroids and refined prototypes, by an
untrained and the trained scorer, and with one term of the margin left out.

    python -m benchmarks.refinement_gain [--users 400] [--unseen 300] [--k 24] [--embedder minilm]
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.feature_extraction.text import HashingVectorizer

from pgenrm import AttributeEvaluator, User
from pgenrm.accuracy import clustered_interval
from pgenrm.attributes.scenario import classify
from pgenrm.history import gather_users
from pgenrm.prototypes import Embedder, Prototypes, SentenceTransformerEmbedder, analyses_of
from pgenrm.prototypes.clustering import nearest
from pgenrm.prototypes.fitting import texts_of
from pgenrm.prototypes.refine import Choices, margins
from pgenrm.prototypes.scorer import PreferenceScorer
from pgenrm.sim import World
from pgenrm.sim.config import WorldConfig

TRAIN_SEED, UNSEEN_SEED = 0, 1
Floats = NDArray[np.float32]


class Words:
    """Hashed words and pairs of words."""

    name, dimension = "words@1", 256

    def embed(self, texts: Sequence[str]) -> Floats:
        words = HashingVectorizer(n_features=self.dimension, ngram_range=(1, 2))
        return np.asarray(words.transform(texts).toarray(), np.float32)


def users_of(seed: int, n: int) -> list[User]:
    return gather_users(World(seed=seed).comparisons("train", n * WorldConfig().n_train))


@dataclass(frozen=True)
class Unseen:
    """Choices of users who were not fitted on, each with the row of its user and scenario."""

    member: Floats
    choices: Choices

    @classmethod
    def of(cls, users: Sequence[User], embedder: Embedder) -> "Unseen":
        analyses = list(analyses_of(users, AttributeEvaluator()))
        vectors = embedder.embed([analysis.text for analysis in analyses])
        rows = {(a.user_id, a.scenario): v for a, v in zip(analyses, vectors, strict=True)}
        choices = [(number, user.id, c) for number, user in enumerate(users) for c in user.history]
        embeddings = embedder.embed([text for _, _, c in choices for text in texts_of(c)])
        query, chosen, rejected = (np.ascontiguousarray(embeddings[i::3]) for i in range(3))
        return cls(
            np.stack([rows[user_id, classify(c.context)] for _, user_id, c in choices]),
            Choices(query, chosen, rejected, np.array([number for number, _, _ in choices])),
        )

    def are_right(self, scorer: PreferenceScorer, prototypes: Floats) -> NDArray[np.bool_]:
        own = nearest(self.member, prototypes)
        under_all = margins(scorer, prototypes, self.choices)
        return np.asarray(under_all[np.arange(len(own)), own] > 0)


def without(scorer: PreferenceScorer, term: str) -> PreferenceScorer:
    return PreferenceScorer.from_arrays(scorer.arrays() | {term: np.zeros(1, np.float32)})


def compared(fitted: Prototypes, unseen: Unseen) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    trained, dimension = fitted.scorer_, fitted.prototypes_.shape[1]
    assert trained is not None
    untrained = PreferenceScorer(dimension)
    for name, scorer in (("untrained", untrained), ("trained", trained)):
        yield f"{name} scorer, centroids", unseen.are_right(scorer, fitted.centroids_)
        yield f"{name} scorer, refined prototypes", unseen.are_right(scorer, fitted.prototypes_)
    nothing = np.zeros_like(fitted.prototypes_)
    yield "trained scorer, no prototype", unseen.are_right(trained, nothing)
    for what, term in (("query", "lambda_query"), ("history", "lambda_history")):
        right = unseen.are_right(without(trained, term), fitted.prototypes_)
        yield f"trained scorer, refined prototypes, no {what} term", right


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--unseen", type=int, default=300, help="users whose choices are ranked")
    parser.add_argument("--k", type=int, default=WorldConfig().n_prototypes)
    parser.add_argument("--embedder", help="a sentence-transformers model; default: hashed words")
    options = parser.parse_args()
    embedder = SentenceTransformerEmbedder(options.embedder) if options.embedder else Words()
    users = users_of(TRAIN_SEED, options.users)
    fitted = Prototypes(embedder, options.k).fit(users, analyses_of(users, AttributeEvaluator()))
    unseen = Unseen.of(users_of(UNSEEN_SEED, options.unseen), embedder)
    of_user = unseen.choices.user
    table = Table(title=f"{len(of_user)} choices of {options.unseen} unseen users, {embedder.name}")
    table.add_column("margins by")
    table.add_column("right, %", justify="right")
    for name, right in compared(fitted, unseen):
        interval = clustered_interval(np.bincount(of_user, right), np.bincount(of_user))
        low, high = interval or (np.nan, np.nan)
        table.add_row(name, f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    moved = np.einsum("kd,kd->k", fitted.prototypes_, fitted.centroids_).mean()
    elsewhere = (fitted.assignment_ != nearest(fitted.rows_, fitted.centroids_)).mean()
    table.caption = (
        f"cosine of centroid and refined prototype {moved:.3f}; "
        f"{elsewhere:.1%} of the rows changed prototype"
    )
    Console().print(table)


if __name__ == "__main__":
    main()
