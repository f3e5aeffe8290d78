"""What is counted of a bench: values, as they stand in `results.json`. Shares are in [0, 1]."""

from pgenrm.bench.plan import Plan
from pgenrm.bench.rows import Kind
from pgenrm.bench.statistics import Estimate
from pgenrm.types import Outcome, Value


class Difference(Value):
    """A method's accuracy less that of another on the same comparisons, paired."""

    to: str
    """Name of the other method."""
    by: Estimate


class Part(Value):
    """What became of one part of the comparisons."""

    n: int
    """Comparisons with a label."""
    n_users: int
    outcomes: dict[Outcome, int]
    """Over all runs; `unscored` includes what has no record yet."""
    accuracy: Estimate
    """Headline: correct / all (micro)."""
    coverage: float
    decided_accuracy: Estimate | None
    """correct / (correct + wrong): the convention of the released script."""
    user_macro: Estimate
    """Mean over users of their accuracy."""
    prototype_macro: Estimate | None
    """Mean over prototypes of their accuracy; None where prototypes are not known."""
    versus_best: Difference | None
    """Against the best baseline; None for itself and where there is none."""


class Group(Value):
    """The comparisons of one prototype."""

    prototype: int
    n: int
    n_users: int
    accuracy: Estimate


class Cost(Value):
    """What a comparison costs on average."""

    n_chains: float
    n_prompt_tokens: float
    n_completion_tokens: float
    seconds: float | None
    """Of scoring, wall clock over a batch; None where no time was kept."""
    adapt_seconds: float | None
    """Per user."""
    fit_seconds: float | None
    """Of the longest fit: one that finds what was learnt before takes no time."""
    adapt_tokens: float | None
    """Per user, of prompts and completions; None where no model was asked."""
    fit_tokens: int | None
    """Of the fit with most of them."""
    cached_share: float | None
    """Of the model's answers, those found in a cache: the seconds leave out what they took."""


class CurvePoint(Value):
    """Verdicts of about the same confidence, of all runs."""

    confidence: float
    """Mean."""
    accuracy: Estimate
    """Share of them that were right."""


class CalibrationResult(Value):
    """Confidence against accuracy."""

    is_calibrated: bool
    """Whether all confidences were fitted to what people preferred. Others say how sure it is that
    more chains would not change the verdict, and were never meant to be right so often."""
    error: float
    """Expected calibration error, the mean over runs of that of each. It has no interval: what
    chance adds to it, a resample adds again."""
    log_score: float
    """Mean over runs of that of each, in nats."""
    curve: tuple[CurvePoint, ...]
    """By rising confidence, about equally full."""


class MethodResult(Value):
    """A row of the table."""

    name: str
    label: str
    kind: Kind
    versions: tuple[str, ...]
    evaluators: tuple[str, ...]
    prompt_versions: tuple[str, ...]
    seeds: tuple[int, ...]
    n_missing: int
    """Comparisons without a record, over all runs."""
    parts: dict[str, Part]
    """`all`, the splits, and `hard` where the truth is known."""
    accuracy_of_runs: tuple[float, ...]
    """By seed, on all comparisons."""
    mean_of_runs: float | None
    """None where nothing is labelled."""
    error_of_runs: float | None
    """Standard error over seeds; None for a single run."""
    order_consistency: float | None
    """Mean over the comparisons that were judged in several orders, ties among them."""
    calibration: CalibrationResult | None
    """None where a run has too few verdicts with a confidence."""
    groups: tuple[Group, ...]
    cost: Cost


class Ranking(Value):
    """How well a method ranks policies by the answers they gave."""

    name: str
    label: str
    by_domain: dict[str, Estimate | None]
    """Spearman's correlation with the ranking by the hidden rubrics; None where there is none."""
    mean: Estimate | None
    """Over domains; None unless there is a correlation for every domain of the data."""
    n_questions: int
    n_unscored: int
    """Questions that the method could not score in full, which are left out."""


class BenchResult(Value):
    """Everything that is counted of a bench."""

    plan: Plan
    best_baseline: str | None
    """The judge or trained baseline with the highest accuracy on these very comparisons."""
    prototypes_of: str | None = None
    """Run that says of which prototype a user is; None where the truth is known, or nobody says."""
    methods: tuple[MethodResult, ...]
    rankings: tuple[Ranking, ...] = ()
    """Where policies were ranked."""
    prepare_seconds: float | None = None
    """Spent once for all methods on embeddings: to embed every text that they need."""

    def method(self, name: str) -> MethodResult:
        """Return the row of a method."""
        return next(method for method in self.methods if method.name == name)
