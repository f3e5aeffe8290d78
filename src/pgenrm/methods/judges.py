"""Language models as judges: rows of table 1 that differ in what the prompt shows of the user.

Every judge gives each response a score from 1 to 10, in both presentation orders, and the orders
are pooled as those of P-GenRM are. Scores rather than a bare choice [ours]: a bare choice would
make every disagreement between the orders a tie.

Whatever writes chains can be behind a judge. SynthesizeMe has a module of its own.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from pgenrm.engines.protocol import Engine, Sampling
from pgenrm.judge import PGenRM
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.answers import read_scores
from pgenrm.methods.known import Known, judged_as
from pgenrm.methods.versions import version_of
from pgenrm.prompts import Template
from pgenrm.scaling.aggregate import PaperAggregator
from pgenrm.types import Comparison, Judgment, Preference, User, Value

N_ORDERS: Final = 2
N_HISTORY: Final = 3
"""Past choices shown; "everywhere in the paper"."""
JUDGE_SAMPLING: Final = Sampling(temperature=0.0)
"""Judges answer greedily [ours]: a sample per order is all they give."""


class Signal(StrEnum):
    """A kind of knowledge about a user."""

    DEMOGRAPHICS = "demographics"
    HISTORY = "history"
    """Past choices, bare of ratings."""
    SELF_DESCRIPTION = "self-description"
    STATED_STYLE = "stated style"
    """Criteria in the user's words; PRISM's system string."""
    CHOICE_ATTRIBUTES = "choice attributes"
    """What mattered for past choices, with the ratings of the responses."""


class Row(Value):
    """A judge of the table."""

    template: str | None
    """Name of a built-in template; None: that of evaluation chains which suits the user."""
    signals: frozenset[Signal] = frozenset()
    """What the prompt shows of the user, and nothing else of him."""


ROWS: Final = {
    "judge-default": Row(template="judge_direct"),
    "judge-cot": Row(template="judge"),
    "judge-demographics": Row(template="judge", signals=frozenset({Signal.DEMOGRAPHICS})),
    "judge-history": Row(template="judge", signals=frozenset({Signal.HISTORY})),
    "judge-self-description": Row(template="judge", signals=frozenset({Signal.SELF_DESCRIPTION})),
    "judge-stated-style": Row(template="judge", signals=frozenset({Signal.STATED_STYLE})),
    "judge-choice-attributes": Row(
        template="judge_attributes", signals=frozenset({Signal.CHOICE_ATTRIBUTES})
    ),
    "judge-psi": Row(template=None, signals=frozenset(Signal)),
}
"""By name of the method. The rows with a signal reason first, as `judge-cot` does."""


class Judge:
    """A language model that judges with one row's prompt; a `pgenrm.methods.protocol.Method`."""

    is_trained = False

    def __init__(
        self,
        name: str,
        engine: Engine,
        *,
        m: int = N_ORDERS,
        n_history: int | None = N_HISTORY,
        sampling: Sampling = JUDGE_SAMPLING,
        seed: int = 0,
    ) -> None:
        """Set up the judge that `ROWS` has under this name; nothing is sent yet.

        Args:
            name: of the row.
            engine: writes the answers.
            m: answers per comparison, over all presentation orders.
            n_history: past choices shown, drawn by (seed, comparison id); None shows all.
            sampling: how to sample.
            seed: of orders, drawn history and sampling.
        """
        self.name = name
        self.row = ROWS[name]
        template = self.row.template
        evaluator = (
            LanguageModelEvaluator(engine, sampling=sampling)
            if template is None
            else LanguageModelEvaluator(engine, Template.load(template), sampling, read=read_scores)
        )
        self.version = version_of(evaluator, m=m, n_history=n_history, signals=self.row.signals)
        self._judge = PGenRM(
            evaluator, m, aggregator=PaperAggregator(), n_history=n_history, seed=seed
        )
        self._known = Known()

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        """Do nothing: a judge learns from its prompt alone."""

    def adapt(self, users: Sequence[User]) -> None:
        """Keep the users' histories for their prompts."""
        self._known.adapt(users)

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        """Judge comparisons, in order; an answer that cannot be read is a failure in its judgment.

        Raises:
            EngineError: the engine cannot be used at all.
        """
        shown = (_only(self.row.signals, self._known.shown(c)) for c in comparisons)
        return judged_as(self._judge, shown, comparisons)


def _only(signals: frozenset[Signal], comparison: Comparison) -> Comparison:
    """Leave nothing of the user but these signals."""
    user = comparison.user
    seen = User(
        id=user.id,
        history=_past(signals, user.history),
        criteria=user.criteria if Signal.STATED_STYLE in signals else (),
        self_description=user.self_description if Signal.SELF_DESCRIPTION in signals else None,
        demographics=user.demographics if Signal.DEMOGRAPHICS in signals else {},
    )
    return comparison.model_copy(update={"user": seen})


def _past(signals: frozenset[Signal], history: tuple[Preference, ...]) -> tuple[Preference, ...]:
    if Signal.CHOICE_ATTRIBUTES not in signals:
        return tuple(map(_bare, history)) if Signal.HISTORY in signals else ()
    if Signal.HISTORY in signals:
        return history
    return tuple(
        pair for pair in history if any(v is not None for v in pair.choice_attributes.values())
    )


def _bare(pair: Preference) -> Preference:
    return Preference(context=pair.context, chosen=pair.chosen, rejected=pair.rejected)
