"""The value types: what is validated, stored as JSON, sent over HTTP and shown is the same type.

All are frozen pydantic models with one JSON form each. `Preference` and `Comparison` also read rows
in the SynthesizeMe / PersonalRewardBench shape and TRL's `prompt, chosen, rejected` as they are.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    computed_field,
    model_validator,
)


class Value(BaseModel):
    """A frozen value with one JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---------------------------------------------------------------- what is known about a user

ROLE_SYNONYMS = {"model": "assistant", "human": "user", "gpt": "assistant"}


def _role(value: object) -> object:
    return ROLE_SYNONYMS.get(value, value) if isinstance(value, str) else value


class Message(Value):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Annotated[Literal["system", "user", "assistant"], BeforeValidator(_role)]
    """`model`, `gpt` and `human`, as some datasets write it, are read too."""
    content: str


def _text(value: object) -> object:
    """Read a response given as a text, a message, or a list of one of these."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and "content" in value:
        value = value["content"]
    return value


def _messages(value: object) -> object:
    """Read a context given as a plain text as one user message."""
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _ends_with_user(context: tuple[Message, ...]) -> tuple[Message, ...]:
    if context[-1].role != "user":
        raise ValueError(
            f"the last message must be the user's, found role {context[-1].role!r}; "
            "put the candidate answers under 'responses'"
        )
    return context


def _some_text(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _str_values(value: object) -> object:
    if isinstance(value, Mapping):
        return {k: str(v) for k, v in value.items() if v is not None}
    return value


Context = Annotated[
    tuple[Message, ...],
    Field(min_length=1),
    BeforeValidator(_messages),
    AfterValidator(_ends_with_user),
]
ResponseText = Annotated[str, BeforeValidator(_text)]
NonEmpty = Annotated[str, AfterValidator(_some_text)]
Id = Annotated[NonEmpty, BeforeValidator(_number_as_text)]


def _index(value: object) -> object:
    """Refuse what would be read as an index by accident; 1.0, as tables write it, is 1."""
    if isinstance(value, bool | str):
        raise ValueError(f"must be the index of a response, found {value!r}")  # noqa: TRY004
    return value


def _columns(data: Any) -> Any:
    """Read a row: an empty column is a missing one, and `prompt` is the context."""
    if not isinstance(data, Mapping):
        return data
    row = {name: value for name, value in data.items() if value is not None}
    if "context" not in row and "prompt" in row:
        row["context"] = row.pop("prompt")
    return row


class Preference(Value):
    """A past choice: in this context the user preferred one response to another.

    Columns that are not named here are ignored, so that dataset rows are read as they are and
    columns such as other judges' predictions never reach a model.
    """

    model_config = ConfigDict(extra="ignore")

    context: Context
    chosen: ResponseText
    rejected: ResponseText
    chosen_score: float | None = None
    """The user's own rating, on the scale of the data."""
    rejected_score: float | None = None
    choice_attributes: dict[str, float | None] = Field(default_factory=dict)
    """How much each attribute mattered for the choice, e.g. PRISM's 0-100 ratings."""

    @model_validator(mode="before")
    @classmethod
    def _read_row(cls, data: Any) -> Any:
        return _columns(data)

    @property
    def is_informative(self) -> bool:
        """Whether the two texts differ at all."""
        return self.chosen != self.rejected


class User(Value):
    """Whoever the judgment is for: past choices and explicit signals, all optional but the id."""

    id: Id
    history: tuple[Preference, ...] = ()
    criteria: Annotated[tuple[NonEmpty, ...], BeforeValidator(_texts)] = ()
    """Stated criteria, in the user's words."""
    self_description: str | None = None
    demographics: Annotated[dict[str, str], BeforeValidator(_str_values)] = Field(
        default_factory=dict
    )

    @model_validator(mode="before")
    @classmethod
    def _read_row(cls, data: Any) -> Any:
        return _columns(data)


class Comparison(Value):
    """A user, a conversation that ends with his query, and the candidate responses.

    A row with `chosen` and `rejected` instead of `responses` is read with the chosen response
    first and `label` 0; the judge's presentation order does not depend on it. A row without
    `user` takes `user_id` (and `history`, `criteria`, ... where they stand in the row).
    """

    model_config = ConfigDict(extra="ignore")

    id: Id
    user: User
    context: Context
    responses: Annotated[tuple[ResponseText, ...], Field(min_length=1)]
    label: Annotated[int | None, BeforeValidator(_index)] = None
    """Index (from 0) of the response that the user preferred, where it is known."""

    @model_validator(mode="before")
    @classmethod
    def _read_row(cls, data: Any) -> Any:
        row = _columns(data)
        if not isinstance(row, dict):
            return row
        if "responses" not in row and "chosen" in row and "rejected" in row:
            row["responses"] = (row["chosen"], row["rejected"])
            row["label"] = 0
        if "user" not in row and "user_id" in row:
            fields = set(User.model_fields) - {"id"}
            row["user"] = {"id": row["user_id"]} | {k: row[k] for k in fields if k in row}
        return row

    @model_validator(mode="after")
    def _label_in_range(self) -> Self:
        if self.label is not None and not 0 <= self.label < len(self.responses):
            raise ValueError(
                f"label is {self.label} but there are {len(self.responses)} responses; "
                f"use an index from 0 to {len(self.responses) - 1}"
            )
        return self


# ---------------------------------------------------------------- the evaluation chain


def _rounded(value: float) -> float:
    return round(value, 4) + 0.0  # no negative zero


def _one_line(text: str) -> str:
    return " ".join(text.split())


Score = Annotated[float, Field(ge=0, le=10), AfterValidator(_rounded)]
Line = Annotated[str, AfterValidator(_one_line)]

ARITHMETIC_TOLERANCE = 0.1
"""A stated total this close to the recomputed one agrees: models round to one decimal."""


class Criterion(Value):
    """One line of a rubric."""

    name: Annotated[str, AfterValidator(_one_line), AfterValidator(_some_text)]
    weight: Annotated[float, Field(ge=0), AfterValidator(_rounded)]
    """Share in percent as the chain states it; shares need not sum to 100."""
    description: Line = ""


class Rating(Value):
    """The score of one response on one criterion."""

    score: Score
    reason: Line = ""


class Arithmetic(StrEnum):
    """How a chain's own totals relate to its rubric."""

    CONSISTENT = "consistent"
    DISAGREES = "disagrees"
    INCOMPLETE = "incomplete"
    """No complete breakdown stands in the chain, so nothing can be recomputed."""
    UNSTATED = "unstated"
    """The breakdown is complete but the chain states no total of its own."""


class ScoreSource(StrEnum):
    """Which of a chain's two totals counts when both exist."""

    RUBRIC = "rubric"
    """Recomputed from weights and ratings; the stated one where the breakdown is incomplete."""
    STATED = "stated"
    """As written by the chain; recomputed where the chain states none."""


class EvaluationChain(Value):
    """[P; S]: preference modelling, then a weighted rubric and scores (paper, section 3.1).

    Response i is the i-th *as presented to the writer of the chain*.
    """

    model_config = ConfigDict(extra="ignore")

    preferences: str
    """P: who this user is in this scenario and what follows for the rubric. Free text."""
    criteria: tuple[Criterion, ...] = ()
    ratings: tuple[tuple[Rating | None, ...], ...] = ()
    """[n_responses][n_criteria]; None where the chain gives no readable score."""
    stated_scores: tuple[Score | None, ...]
    """[n_responses]; the final scores as the chain writes them."""
    rationale: str | None = None
    """The rationale as written; None when criteria and ratings say it all."""

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if not self.stated_scores:
            raise ValueError("a chain scores at least one response")
        if self.ratings and len(self.ratings) != len(self.stated_scores):
            raise ValueError("ratings and stated_scores must cover the same responses")
        if any(len(row) != len(self.criteria) for row in self.ratings):
            raise ValueError("every row of ratings must have one entry per criterion")
        return self

    @property
    def n_responses(self) -> int:
        """Number of responses that the chain was written for."""
        return len(self.stated_scores)

    @property
    def rubric_scores(self) -> tuple[float, ...] | None:
        """The weighted totals, recomputed; None unless the breakdown is complete.

        Weights are normalised to sum to one.
        """
        total = sum(c.weight for c in self.criteria)
        if not self.ratings or total <= 0:
            return None
        scores = []
        for row in self.ratings:
            score = 0.0
            for criterion, rating in zip(self.criteria, row, strict=True):
                if rating is None:
                    return None
                score += criterion.weight * rating.score
            scores.append(_rounded(score / total))
        return tuple(scores)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def arithmetic(self) -> Arithmetic:
        """Whether the stated totals follow from the rubric."""
        recomputed = self.rubric_scores
        if recomputed is None:
            return Arithmetic.INCOMPLETE
        pairs = [
            (a, b) for a, b in zip(recomputed, self.stated_scores, strict=True) if b is not None
        ]
        if not pairs:
            return Arithmetic.UNSTATED
        if all(abs(a - b) <= ARITHMETIC_TOLERANCE + 1e-9 for a, b in pairs):
            return Arithmetic.CONSISTENT
        return Arithmetic.DISAGREES

    def scores(self, source: ScoreSource = ScoreSource.RUBRIC) -> tuple[float | None, ...]:
        """Extract(S): one score per response, in presentation order."""
        recomputed = self.rubric_scores
        if recomputed is None:
            return self.stated_scores
        if source is ScoreSource.RUBRIC:
            return recomputed
        return tuple(
            b if a is None else a for a, b in zip(self.stated_scores, recomputed, strict=True)
        )


# ---------------------------------------------------------------- samples and verdicts


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    LENGTH = "length"
    FILTERED = "filtered"
    OTHER = "other"


class FailureKind(StrEnum):
    """At which boundary a sample was lost."""

    REQUEST = "request"
    """The engine gave no completion."""
    FORMAT = "format"
    """A completion came but is not a readable chain."""
    TRUNCATED = "truncated"
    """As `format`, and the completion had hit its token limit."""
    TOO_LONG = "too_long"
    """The prompt cannot be made to fit the context window without cutting a response."""


class Failure(Value):
    """A sample that could not be produced: kept, counted and never a number."""

    kind: FailureKind
    reason: str
    text: str = ""
    """The completion as it came, where there was one."""
    n_tokens: int = 0


class JudgedChain(Value):
    """One chain with what it says about the responses of the comparison."""

    order: tuple[int, ...]
    """Presentation order: position p showed response `order[p]`."""
    chain: EvaluationChain
    scores: tuple[float, ...]
    """[n_responses], by response (not by position); identical texts share their mean."""
    finish_reason: FinishReason = FinishReason.STOP
    n_tokens: int = 0
    neighbour: str | None = None
    """Id of the similar user whose history it was written with; None: the user's own."""
    similarity: float | None = None
    """Cosine of the two users' analyses, for a neighbour's chain."""
    agreement: float | None = None
    """Log-likelihood of choices of the user that the chain was written without, under its own
    rubric (one point of margin = one logit), those that could not be rated taken to be like the
    others; None where nothing was checked."""


class FailedChain(Value):
    """A chain that could not be had."""

    order: tuple[int, ...]
    failure: Failure
    neighbour: str | None = None


class Outcome(StrEnum):
    """What became of a labelled comparison. A tie and an unscored one are never right."""

    CORRECT = "correct"
    WRONG = "wrong"
    TIE = "tie"
    UNSCORED = "unscored"


class Judgment(Value):
    """A verdict for one comparison, with everything it rests on."""

    id: str
    user_id: str
    comparison_digest: str
    """Fingerprint of what was judged: user, context, responses and label."""
    scores: tuple[float | None, ...]
    """[n_responses]; mean over presentation orders of the mean over each one's readable chains,
    own and neighbours' blended by the aggregator; None when there are none."""
    standard_errors: tuple[float | None, ...]
    """[n_responses]; of the means over chains; None with fewer than two chains."""
    choice: int | None
    """Index of the best response; None for a tie, when unscored, and for a single response."""
    is_tie: bool
    label: int | None
    outcome: Outcome | None
    """None without a label, and for a single response."""
    confidence: float | None
    """In [1 / n_responses, 1]. Where `is_calibrated`, the probability that the user prefers the
    choice. Otherwise how sure it is that more chains of the same kind would not change the choice,
    low where a presentation order that was asked for gave no readable chain."""
    order_consistency: float | None
    """Share of the pairs of presentation orders that choose the same response, each order by its
    own chains, pooled (neighbours' chains where there are no own); with two orders 1 or 0. An order
    that ties agrees with none; whether the verdict of all orders is a tie does not matter. None
    where fewer than two orders were scored."""
    chains: tuple[JudgedChain, ...]
    failures: tuple[FailedChain, ...]
    n_prompt_tokens: int
    n_completion_tokens: int
    cuts: tuple[str, ...]
    """What was left out of the prompt, in words, in the order it was cut."""
    evaluator: str
    """Kind and model of whoever wrote the chains."""
    prompt_version: str
    seed: int
    n_history: int = 0
    """Past choices of the user that his own chains were written with."""
    aggregator: str = ""
    """How own and neighbours' chains were combined."""
    is_calibrated: bool = False
    """Whether `confidence` was fitted to what people preferred, or follows from how a simulated
    world was made."""
    neighbour_weight: float = 0.0
    """Share of the neighbours in the scores, in [0, 1]."""
    prototype: int | None = None
    """Index of the user's nearest prototype, where neighbours were looked for."""
    n_outside: int = 0
    """Neighbours that had to come from other prototypes."""
    neighbour_source: str | None = None
    """Name of the prototypes, or of what else found the neighbours; None where none were sought."""
    is_settled: bool | None = None
    """Whether sampling stopped because the verdict was settled (True) or at the caps (False); None
    without sequential stopping."""
