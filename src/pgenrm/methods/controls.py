"""Controls: judges that know little on purpose, and judges that know how the world is made.

The attribute evaluator as a control is `pgenrm.methods.pgenrm.Personalised` around it.
"""

from collections.abc import Callable, Sequence
from typing import Final

from pgenrm.case import rotations
from pgenrm.methods.known import Known
from pgenrm.methods.protocol import judgment_of
from pgenrm.seeding import rng
from pgenrm.sim.observer import N_PARTICLES, Reference, oracle, references
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Judgment, User

Rule = Callable[[Comparison, int], Sequence[float]]
"""(comparison, seed) -> a score per response."""


def _longest(comparison: Comparison, _: int) -> Sequence[float]:
    return [len(text) for text in comparison.responses]


def _shortest(comparison: Comparison, _: int) -> Sequence[float]:
    return [-len(text) for text in comparison.responses]


def _first_position(comparison: Comparison, seed: int) -> Sequence[float]:
    n = len(comparison.responses)
    first = rotations(n, (seed, comparison.id))[0][0]
    return [float(i == first) for i in range(n)]


def _random(comparison: Comparison, seed: int) -> Sequence[float]:
    drawn = rng("random judge", seed, comparison.id).random(len(comparison.responses))
    return [float(x) for x in drawn]


RULES: Final[dict[str, Rule]] = {
    "longest": _longest,
    "shortest": _shortest,
    "first-position": _first_position,
    "random": _random,
}
"""By name of the method. Lengths are in characters; equal ones are a tie. `first-position` takes
what a judge with the same seed is shown first: more than half right would mean that presentation
orders give labels away."""


class Fixed:
    """A judge by one of `RULES`, who knows no user; a `pgenrm.methods.protocol.Method`."""

    is_trained = False

    def __init__(self, name: str, *, seed: int = 0) -> None:
        self.name = name
        self.version = f"{name}@1"
        self.seed = seed

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Do nothing."""

    def adapt(self, users: Sequence[User]) -> None:
        """Do nothing."""

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order."""
        rule = RULES[self.name]
        return [
            judgment_of(c, rule(c, self.seed), method=self.version, seed=self.seed)
            for c in comparisons
        ]


class BayesObserver:
    """The best that can be done in a simulated world with what a judge sees.

    See `pgenrm.sim.observer`; a `pgenrm.methods.protocol.Method`.
    """

    name = "bayes-observer"
    is_trained = False

    def __init__(
        self,
        world: World,
        *,
        sees_statements: bool = True,
        n_history: int | None = None,
        n_particles: int = N_PARTICLES,
        seed: int = 0,
    ) -> None:
        """Set up the observer.

        Args:
            world: as the comparisons were made.
            sees_statements: whether criteria and self-descriptions are seen beside past choices.
            n_history: past choices seen, drawn as a judge with the same seed draws them; None sees
                all.
            n_particles: per set, see `pgenrm.sim.observer.references`.
            seed: of the drawn history and of the particles.
        """
        self.world = world
        self.sees_statements = sees_statements
        self.n_history = n_history
        self.n_particles = n_particles
        self.seed = seed
        self.version = f"bayes-observer@1 {sees_statements} {n_history} {n_particles}"
        self._known = Known()

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Do nothing: the observer knows the population."""

    def adapt(self, users: Sequence[User]) -> None:
        """Keep the users' histories."""
        self._known.adapt(users)

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons of two responses, in order; the score is the chance to be preferred.

        Raises:
            InputError: a comparison is not of this world.
        """
        shown = [self._known.shown(c) for c in comparisons]
        n_most = max((len(c.user.history) for c in shown), default=0)
        n_pairs = n_most if self.n_history is None else self.n_history
        [found] = references(
            [_with_some_label(c) for c in shown],
            self.world,
            (n_pairs,),
            with_criteria=self.sees_statements,
            seed=self.seed,
            n_particles=self.n_particles,
        )
        n_seen = [min(n_pairs, len(c.user.history)) for c in shown]
        return _judgments(comparisons, found, self.version, self.seed, n_seen)


class Oracle:
    """Judges by the users' hidden weights: what it misses is the noise of their choices.

    A `pgenrm.methods.protocol.Method`.
    """

    name = "oracle"
    version = "oracle@1"
    is_trained = False

    def __init__(self, world: World) -> None:
        self.world = world

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Do nothing."""

    def adapt(self, users: Sequence[User]) -> None:
        """Do nothing."""

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons of two responses, in order; the score is the chance to be preferred.

        Raises:
            InputError: a comparison is not of this world.
        """
        found = oracle([_with_some_label(c) for c in comparisons], self.world)
        return _judgments(comparisons, found, self.version, 0, [0] * len(comparisons))


def _with_some_label(comparison: Comparison) -> Comparison:
    """Put a label in, since references count how often they are right; here nobody reads it."""
    return comparison.model_copy(update={"label": 0})


def _judgments(
    comparisons: Sequence[Comparison],
    found: Reference,
    method: str,
    seed: int,
    n_seen: Sequence[int],
) -> list[Judgment]:
    return [
        judgment_of(c, (p, 1 - p), method=method, seed=seed, confidence=max(p, 1 - p), n_history=n)
        for c, p, n in zip(comparisons, found.probabilities, n_seen, strict=True)
    ]
