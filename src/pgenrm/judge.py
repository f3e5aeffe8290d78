"""The judge: chains in rounds, own and neighbours', combined into one verdict (paper, section 3.4).

Half of the chains see the responses in each presentation order (for more than two responses:
balanced rotations), and all are pooled *before* deciding, the orders counting alike. A tie and an
unscored comparison are outcomes, never guesses.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pgenrm.attributes.scenario import classify
from pgenrm.batches import batched, in_order
from pgenrm.case import MIN_TO_HOLD_OUT, Asked, Case, by_prefix, rotations
from pgenrm.errors import EngineError
from pgenrm.evaluator import ChainSet, Evaluator, RubricScorer
from pgenrm.history import draw_history
from pgenrm.neighbours import NeighbourSource
from pgenrm.scaling.aggregate import Aggregator
from pgenrm.scaling.evidence import evidence_of
from pgenrm.scaling.rubric_check import agreement
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import Stage, StoppingRule
from pgenrm.types import Comparison, Judgment, ScoreSource
from pgenrm.verdict import verdict


@dataclass(frozen=True)
class RubricCheck:
    """Weigh chains by how well their own rubric ranks choices of the user they did not see."""

    scorer: RubricScorer
    """Applies rubrics; normally the evaluator itself."""
    n_folds: int = 1
    """Own chains are written in so many folds, each without its part of the history, where the
    user has at least four choices; 1 checks neighbours' chains only, for which every choice of the
    user is held out."""

    def __post_init__(self) -> None:
        if self.n_folds < 1:
            raise ValueError(f"n_folds must be at least 1, not {self.n_folds}")


class PGenRM:
    """Judges comparisons with the chains of one evaluator."""

    def __init__(
        self,
        evaluator: Evaluator,
        m: int = 8,
        n: int = 0,
        *,
        neighbours: NeighbourSource | None = None,
        aggregator: Aggregator | None = None,
        stopping: StoppingRule | None = None,
        rubric_check: RubricCheck | None = None,
        n_history: int | None = None,
        score_source: ScoreSource = ScoreSource.RUBRIC,
        seed: int = 0,
        batch_size: int = 32,
        workers: int | None = None,
    ) -> None:
        """Set up a judge; nothing is loaded or sent yet.

        Args:
            evaluator: writes the chains.
            m: chains per comparison with the user's own history, over all presentation orders
                (Ind-m); 0 leaves the verdict to the neighbours.
            n: chains per comparison with the histories of as many similar users (Pro-n).
            neighbours: finds similar users, e.g. `pgenrm.prototypes.Prototypes`; needed for n > 0.
            aggregator: combines own and neighbours' chains; None takes `Shrinkage` as it ships.
            stopping: draws chains in rounds and stops when the verdict is settled; its caps stand
                for m and n. None draws all at once.
            rubric_check: weighs chains by the user's own choices; None does not.
            n_history: past choices shown, drawn at random per comparison; None shows all. The
                paper uses 3.
            score_source: which total counts where a chain's own arithmetic disagrees.
            seed: with the comparison's id, fixes orders, drawn history and sampling.
            batch_size: comparisons handed to the evaluator at once; moves no result.
            workers: batches under way at once; None asks the evaluator. Moves no result.

        Raises:
            ValueError: a count is below its minimum, or n needs `neighbours`.
        """
        if batch_size < 1 or (workers is not None and workers < 1):
            raise ValueError("batch_size and workers must be at least 1")
        if m < 0 or n < 0 or m + n == 0:
            raise ValueError(f"m and n must be 0 or more and not both 0, found m = {m}, n = {n}")
        if n_history is not None and n_history < 0:
            raise ValueError(f"n_history must be 0 or more, or None for all, not {n_history}")
        self.stages = stopping.stages if stopping else (Stage(m=m, n=n),)
        if neighbours is None and self.stages[-1].n:
            raise ValueError("n needs neighbours: fit prototypes first (pgenrm prototypes fit)")
        self.evaluator = evaluator
        self.m, self.n = self.stages[-1].m, self.stages[-1].n
        self.neighbours = neighbours
        self.aggregator: Aggregator = aggregator or Shrinkage()
        self.stopping = stopping
        self.rubric_check = rubric_check
        self.n_history = n_history
        self.score_source = score_source
        self.seed = seed
        self.batch_size = batch_size
        self.workers = workers or evaluator.workers

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgment]:
        """Yield one judgment per comparison, in order, reading the input only as far as needed.

        Raises:
            EngineError: the evaluator cannot work at all. A lost chain is a failure inside its
                judgment, not an exception.
        """
        batches = batched(comparisons, self.batch_size)
        for judgments in in_order(batches, self._judge_batch, self.workers):
            yield from judgments

    def judge_one(self, comparison: Comparison) -> Judgment:
        """Judge a single comparison."""
        return self._judge_batch([comparison])[0]

    def _judge_batch(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        cases = [self._case(comparison) for comparison in comparisons]
        judgments: dict[int, Judgment] = {}
        for number, stage in enumerate(self.stages):
            still_open = [i for i in range(len(cases)) if i not in judgments]
            self._draw([cases[i] for i in still_open], stage)
            for i in still_open:
                judgment = self._judged(cases[i], number)
                if judgment is not None:
                    judgments[i] = judgment
        return [judgments[i] for i in range(len(cases))]

    def _judged(self, case: Case, stage: int) -> Judgment | None:
        """Judge a case if it stops here; on its own, so that rounding owes nothing to the batch."""
        evidence = evidence_of([case.record()])
        combined = self.aggregator.combine(evidence)
        rule, is_last = self.stopping, stage == len(self.stages) - 1
        if rule is not None and not is_last:
            [loss] = rule.expected_loss(stage, evidence, combined)
            if loss > rule.stop_below:
                return None
        return verdict(
            case,
            evidence,
            combined,
            evaluator=self.evaluator.name,
            aggregator=self.aggregator.name,
            neighbour_source=self.neighbours.name
            if self.neighbours and case.neighbourhood
            else None,
            is_settled=not is_last if rule else None,
        )

    # ------------------------------------------------------------ chains

    def _case(self, comparison: Comparison) -> Case:
        seen = comparison
        if self.n_history is not None:
            seen = draw_history(comparison, self.n_history, self.seed)
        n_pairs = len(seen.user.history)
        return Case(
            comparison=comparison,
            seen=seen,
            orders=rotations(len(comparison.responses), (self.seed, comparison.id)),
            seed=self.seed,
            score_source=self.score_source,
            n_folds=min(self.rubric_check.n_folds, n_pairs)
            if self.rubric_check and n_pairs >= MIN_TO_HOLD_OUT
            else 1,
            is_known=self.n > 0 and self._knows(comparison),
        )

    def _knows(self, comparison: Comparison) -> bool:
        scenario = str(classify(comparison.context))
        return self.neighbours is not None and self.neighbours.knows(comparison.user.id, scenario)

    def _draw(self, cases: Sequence[Case], stage: Stage) -> None:
        """Bring every case to the stage: own and neighbours' requests go out together.

        A user whom the source does not know needs an analysis first. One own chain is written for
        it, and only that one is waited for. Where it cannot be read, neighbours wait for the
        others; without any, the case stays without neighbours.
        """
        if stage.n:
            strangers = [case for case in cases if not case.can_be_placed]
            counts = self.m > 0
            self._ask([(case, one) for case in strangers for one in case.own(1)], counts=counts)
            self._locate(cases)
        asked = [(case, one) for case in cases for one in case.own(stage.m)]
        late = [case for case in cases if case.neighbourhood is None and stage.n]
        on_time = [case for case in cases if case.neighbourhood is not None]
        asked += [(case, one) for case in on_time for one in case.of_neighbours(stage.n)]
        self._ask(asked)
        self._locate(late)
        self._ask([(case, one) for case in late for one in case.of_neighbours(stage.n)])

    def _locate(self, cases: Sequence[Case]) -> None:
        """Find the neighbours of those who have none yet, where it can be done."""
        todo = [case for case in cases if case.neighbourhood is None and case.can_be_placed]
        if not todo or self.neighbours is None:
            return
        found = self.neighbours.find([case.query(self.n) for case in todo])
        for case, neighbourhood in zip(todo, found, strict=True):
            if any(one.user.id == case.seen.user.id for one in neighbourhood.neighbours):
                raise EngineError(
                    f"neighbours {self.neighbours.name} broke their contract: user "
                    f"{case.seen.user.id!r} is named as his own"
                )
            case.neighbourhood = neighbourhood

    def _ask(self, asked: Sequence[tuple[Case, Asked]], *, counts: bool = True) -> None:
        if not asked:
            return
        sent = [one for _, one in by_prefix(asked)]
        answers = dict(zip(map(id, sent), self._evaluate(sent), strict=True))
        for case, one in asked:  # a case's chains stand in its own order, whatever else was sent
            case.take(one, answers[id(one)], counts=counts)
        if self.rubric_check:
            self._check({id(case): case for case, _ in asked}.values(), self.rubric_check)

    def _evaluate(self, asked: Sequence[Asked]) -> list[ChainSet]:
        sets = self.evaluator.evaluate([one.request for one in asked])
        wanted, answered = [one.request.n for one in asked], [len(s.samples) for s in sets]
        if wanted != answered:
            raise EngineError(
                f"evaluator {self.evaluator.name} broke its contract: asked for {wanted} chains, "
                f"it answered with {answered}"
            )
        return sets

    def _check(self, cases: Iterable[Case], check: RubricCheck) -> None:
        """Fill in the agreement of the new chains."""
        todo = [one for case in cases for one in case.written if not one.is_checked]
        found = agreement(
            check.scorer, [(one.chain.chain, one.held_out) for one in todo], self.seed
        )
        for one, agrees in zip(todo, found, strict=True):
            one.is_checked = True
            if agrees is not None:
                # Choices that could not be rated count like the others: to lose some is no merit.
                n_choices = agrees.n_pairs + agrees.n_failed
                value = agrees.log_likelihood / agrees.n_pairs * n_choices
                one.chain = one.chain.model_copy(update={"agreement": round(value, 6)})
