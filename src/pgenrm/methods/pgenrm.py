"""P-GenRM as a method: `fit` learns prototypes and calibration (paper, sections 3.3 and 3.4).

Any evaluator writes the chains: a checkpoint, a server, the attribute evaluator.
"""

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, Literal

from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.history import gather_users
from pgenrm.judge import PGenRM
from pgenrm.methods.known import Known, judged_as
from pgenrm.methods.versions import version_of
from pgenrm.neighbours import NeighbourSource
from pgenrm.prototypes.analyses import analyses_of
from pgenrm.prototypes.embedder import Embedder
from pgenrm.scaling.aggregate import Aggregator, PaperAggregator
from pgenrm.scaling.calibration import MIN_USERS, Calibration, calibrate
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.seeding import derive_seed
from pgenrm.types import Comparison, Judgment, Outcome, User, Value

if TYPE_CHECKING:
    from pgenrm.prototypes.store import Prototypes

CALIBRATION_SHARE: Final = 0.25
"""Of the validation users, where all of them are training users too: they leave the prototypes."""


class Scaling(Value):
    """How many chains there are and how they count."""

    m: int
    """Chains with the user's own history, over both presentation orders."""
    n: int = 0
    """Chains with the histories of similar users."""
    is_adaptive: bool = False
    """Draws in rounds and stops where the verdict is settled; m and n are the most."""
    aggregator: Literal["shrinkage", "paper"] = "shrinkage"
    """`shrinkage` is calibrated in `fit`; `paper` gives own and neighbours' chains half each."""
    n_history: int | None = 3
    """Past choices shown, of the user and of neighbours; None shows all. The paper's."""
    k: int | None = None
    """Prototypes; None takes the knee of the retained variance. The paper has 50."""
    is_refined: bool = True
    """Whether prototypes are refined on past choices."""
    n_calibration: int | None = 800
    """Most comparisons judged for the calibration, spread over users; None takes all [ours]."""


VARIANTS: Final = {
    "pgenrm": Scaling(m=2),
    "pgenrm-ind8": Scaling(m=8),
    "pgenrm-ind8-pro4": Scaling(m=8, n=4),
    "pgenrm-ind8-pro4-paper": Scaling(m=8, n=4, aggregator="paper"),
    "pgenrm-ind16-pro8": Scaling(m=16, n=8),
    "pgenrm-adaptive": Scaling(m=16, n=8, is_adaptive=True),
}
"""By name of the method. A single chain sees one presentation order, so that the least is two."""


class Personalised:
    """P-GenRM; a `pgenrm.methods.protocol.Method`.

    Attributes:
        prototypes_: who is similar to whom; None where no neighbours are asked, or before `fit`.
        calibration_: None before `fit`, with the paper's aggregator, and with fewer than 40
            validation users who got a score (weights are then those that ship, and judgments are
            not calibrated).
    """

    def __init__(
        self,
        name: str,
        evaluator: Evaluator,
        scaling: Scaling | None = None,
        *,
        embedder: Embedder | None = None,
        seed: int = 0,
    ) -> None:
        """Set up the method; nothing is loaded or sent yet.

        Args:
            name: of the method.
            evaluator: writes the chains.
            scaling: None takes what `VARIANTS` has under the name.
            embedder: of analyses, for neighbours.
            seed: of orders, drawn history, sampling, clustering, and who is calibrated on.

        Raises:
            InputError: neighbours are wanted and there is no embedder.
        """
        self.name = name
        self.scaling = scaling or VARIANTS[name]
        if self.scaling.n and embedder is None:
            raise InputError(f"{name} asks {self.scaling.n} neighbours, which needs an embedder")
        self.evaluator = evaluator
        self.embedder = embedder
        self.seed = seed
        self.is_trained = self.scaling.n > 0
        self.version = version_of(
            evaluator,
            scaling=self.scaling.model_dump_json(),
            embedder=embedder.name if embedder and self.scaling.n else None,
        )
        self.prototypes_: Prototypes | None = None
        self.calibration_: Calibration | None = None
        self._known = Known()

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Learn prototypes from training users, then weights and stopping from validation users.

        Nobody serves for both: where too few validation users are no training users, a quarter of
        the validation users is left out of the prototypes.

        Raises:
            EngineError: the evaluator cannot work at all.
            InputError: neighbours are wanted and there are too few training users.
        """
        calibrates = self.scaling.aggregator == "shrinkage"
        chosen = self._calibration_users(train, validation) if calibrates else frozenset()
        self.prototypes_, self.calibration_ = None, None
        if self.scaling.n:
            users = gather_users(c for c in train if c.user.id not in chosen)
            self.prototypes_ = self._prototypes(users)
        if chosen:
            judged = _spread([c for c in validation if c.user.id in chosen])
            judgments = self._judge(is_final=False).judge(judged[: self.scaling.n_calibration])
            scored = [one for one in judgments if one.outcome is not Outcome.UNSCORED]
            if len({one.user_id for one in scored}) >= MIN_USERS:
                self.calibration_ = calibrate(scored, seed=self.seed)

    def adapt(self, users: Sequence[User]) -> None:
        """Keep the users' histories for their prompts."""
        self._known.adapt(users)

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order.

        Raises:
            EngineError: the evaluator cannot work at all.
            InputError: neighbours are wanted and `fit` was not called.
        """
        if self.scaling.n and self.prototypes_ is None:
            raise InputError(f"{self.name} asks neighbours; call fit first")
        shown = map(self._known.shown, comparisons)
        return judged_as(self._judge(is_final=True), shown, comparisons)

    # ------------------------------------------------------------ parts

    def _prototypes(self, users: Sequence[User]) -> "Prototypes":
        from pgenrm.prototypes.store import DEFAULT_REFINEMENT, Prototypes  # loads torch

        assert self.embedder is not None  # as __init__ has seen to
        analyses = analyses_of(
            users, self.evaluator, n_history=self.scaling.n_history, seed=self.seed
        )
        return Prototypes(
            self.embedder,
            self.scaling.k,
            refinement=DEFAULT_REFINEMENT if self.scaling.is_refined else None,
            n_history=self.scaling.n_history,
            seed=self.seed,
        ).fit(users, analyses)

    def _judge(self, *, is_final: bool) -> PGenRM:
        """Return the judge; before calibration with all chains at once and shipped weights."""
        neighbours: NeighbourSource | None = self.prototypes_
        return PGenRM(
            self.evaluator,
            self.scaling.m,
            self.scaling.n,
            neighbours=neighbours,
            aggregator=self._aggregator(),
            stopping=self._stopping() if is_final and self.scaling.is_adaptive else None,
            n_history=self.scaling.n_history,
            seed=self.seed,
        )

    def _aggregator(self) -> Aggregator:
        if self.scaling.aggregator == "paper":
            return PaperAggregator()
        return self.calibration_.aggregator() if self.calibration_ else Shrinkage()

    def _stopping(self) -> StoppingRule:
        if self.calibration_:
            return self.calibration_.stopping
        return StoppingRule(stages=rounds(self.scaling.m, self.scaling.n))

    def _calibration_users(
        self, train: Sequence[Comparison], validation: Sequence[Comparison]
    ) -> frozenset[str]:
        """Choose who is calibrated on; nobody where they are too few."""
        users = {c.user.id for c in validation if c.label is not None}
        stored = {c.user.id for c in train} if self.scaling.n else set()
        apart = users - stored
        if len(apart) >= MIN_USERS:
            return frozenset(apart)
        n = max(MIN_USERS, int(CALIBRATION_SHARE * len(users)))
        if len(users) < 2 * n:
            return frozenset()
        drawn = sorted(users, key=lambda name: derive_seed("calibration", self.seed, name))
        return frozenset(drawn[:n])


def _spread(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Order comparisons so that every user's first come before anybody's second."""
    of_user: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        of_user.setdefault(comparison.user.id, []).append(comparison)
    turns = zip_longest(*of_user.values())
    return [comparison for turn in turns for comparison in turn if comparison is not None]
