"""What is compared: worlds, users, evaluators, prototypes. All seeds and sizes stand here."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from pgenrm import AttributeEvaluator, AttributeModel, Comparison, User
from pgenrm.history import gather_users
from pgenrm.neighbours import Neighbour, Neighbourhood, NeighbourQuery
from pgenrm.prototypes.analyses import analyses_of
from pgenrm.prototypes.embedder import SentenceTransformerEmbedder
from pgenrm.prototypes.refine import RefinementConfig
from pgenrm.prototypes.store import Prototypes
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.world import World, without_statements

TEST_SEED, VALIDATION_SEED, POPULATION_SEED = 311, 312, 0
"""The first two drew no user of the pilot, which settled the form of shrinkage and stopping."""
JUDGE_SEED = 1
N_STORED = 400
"""Seen users of the test world whose 12 choices feed the prototypes and who serve as neighbours."""
N_VALIDATION = 600
"""Comparisons of unseen users of the validation world: fit of blend and stopping."""
N_POPULATION = 4800
"""Train comparisons that the fitted attribute evaluator learnt its population from."""
MAX_TOKENS = 64
TRUE_K = WorldConfig().n_prototypes


@cache
def world(seed: int) -> World:
    return World(seed=seed)


def comparisons(seed: int, n: int, *, statements: bool = False) -> list[Comparison]:
    """Return comparisons of unseen users; with statements, only of users who state something."""
    made = world(seed).comparisons("test_unseen", n)
    if statements:
        return [c for c in made if c.user.criteria or c.user.self_description]
    return [without_statements(c) for c in made]


def with_others_history(given: Sequence[Comparison]) -> list[Comparison]:
    """Show every user the history of another one, some users further on."""
    per_user = WorldConfig().n_test
    return [
        c.model_copy(
            update={
                "user": c.user.model_copy(
                    update={"history": given[(i + 7 * per_user) % len(given)].user.history}
                )
            }
        )
        for i, c in enumerate(given)
    ]


@cache
def stored_users() -> tuple[User, ...]:
    train = world(TEST_SEED).comparisons("train", N_STORED * WorldConfig().n_train)
    return tuple(gather_users(without_statements(c) for c in train))


@cache
def evaluator(name: str) -> AttributeEvaluator:
    if name == "shipped":
        return AttributeEvaluator()
    train = world(POPULATION_SEED).comparisons("train", N_POPULATION)
    return AttributeEvaluator(AttributeModel().fit(without_statements(c) for c in train))


REFINEMENTS: dict[str, RefinementConfig | None] = {
    "refined": RefinementConfig(),
    "no refinement": None,
    "no centre term": replace(RefinementConfig(), lambda_centre=0.0),
    "no trust term": replace(RefinementConfig(), lambda_trust=0.0),
    "neither": replace(RefinementConfig(), lambda_centre=0.0, lambda_trust=0.0),
    "no query in z": replace(RefinementConfig(), lambda_query=0.0),
    "no history in z": replace(RefinementConfig(), lambda_history=0.0),
}


def prototypes(
    out: Path, evaluator_name: str, k: int | None = TRUE_K, refinement: str = "refined"
) -> Prototypes:
    """Load prototypes from `out`, or fit them first."""
    embedder = SentenceTransformerEmbedder(
        "minilm", max_tokens=MAX_TOKENS, cache=out / "embeddings.sqlite", device="cpu"
    )
    place = out / f"prototypes-{evaluator_name}-{k or 'auto'}-{refinement.replace(' ', '-')}"
    if (place / "prototypes.json").exists():
        return Prototypes.load(place, embedder)
    users = stored_users()
    fitted = Prototypes(embedder, k, refinement=REFINEMENTS[refinement], n_history=None).fit(
        users, analyses_of(users, evaluator(evaluator_name))
    )
    fitted.save(place)
    return fitted


class RandomNeighbours:
    """A control: neighbours drawn at random from all stored users."""

    name = "random"

    def __init__(self, users: Sequence[User]) -> None:
        self.users = users

    def knows(self, user_id: str, scenario: str) -> bool:
        return True

    def find(self, queries: Sequence[NeighbourQuery]) -> list[Neighbourhood]:
        return [Neighbourhood(0, tuple(self._drawn(query))) for query in queries]

    def _drawn(self, query: NeighbourQuery) -> Iterator[Neighbour]:
        order = rng("random neighbours", query.user_id, query.scenario).permutation(len(self.users))
        others = (self.users[i] for i in order.tolist() if self.users[i].id != query.user_id)
        for user, _ in zip(others, range(query.n), strict=False):
            yield Neighbour(user, similarity=0.5)
