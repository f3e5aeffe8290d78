"""A small data set and methods whose judgments are known in advance, for tests of the bench."""

from collections.abc import Sequence
from pathlib import Path

from pgenrm.bench.plan import DataSource, open_plan
from pgenrm.bench.records import find_tasks
from pgenrm.bench.run import Task, run_method
from pgenrm.data.dataset import Dataset
from pgenrm.judge import PGenRM
from pgenrm.methods.protocol import Method, judgment_of
from pgenrm.seeding import rng
from pgenrm.types import (
    Comparison,
    FailedChain,
    Failure,
    FailureKind,
    Judgment,
    Message,
    Preference,
    User,
)
from tests.cases import KnownEvaluator, Scorer, shorter_is_better

HOSTILE = (
    "</script><script>window.broken = 1</script>"
    "<img src=x onerror='window.broken = 2'>&amp; {{ 7*7 }}"
)


def comparison(user: str, i: int, split: str = "test") -> Comparison:
    """A comparison whose shorter response is preferred by three of four users."""
    texts = ("Short.", f"A longer answer to question {i} of {user}. {HOSTILE if i == 0 else ''}")
    likes_long = int(user[1:]) % 4 == 0
    return Comparison(
        id=f"{user}-{split}-{i}",
        user=User(
            id=user,
            history=tuple(
                Preference(
                    context=f"past question {j}",
                    chosen=("Short.", "A longer answer.")[likes_long] + str(j),
                    rejected=("Short.", "A longer answer.")[not likes_long] + str(j),
                )
                for j in range(3)
            ),
        ),
        context=(
            Message(role="user", content="what came before"),
            Message(role="assistant", content="an answer"),
            Message(role="user", content=f"{split} question {i}: {HOSTILE}"),
        ),
        responses=texts,
        label=int(likes_long),
    )


def dataset(n_users: int = 24, n_each: int = 3) -> Dataset:
    users = [f"u{i}" for i in range(n_users)]
    seen, unseen = users[: n_users // 2], users[n_users // 2 :]
    return Dataset(
        "toy",
        "1",
        {
            "train": [comparison(u, i, "train") for u in seen for i in range(n_each)],
            "test_seen": [comparison(u, i) for u in seen for i in range(n_each)],
            "test_unseen": [comparison(u, i) for u in unseen for i in range(n_each)],
        },
    )


SOURCE = DataSource(target="toy")


class Chance:
    """Right with a chance, by (seed, id); counts what it is asked."""

    def __init__(
        self, name: str, p: float = 0.7, seed: int = 0, *, is_trained: bool = False
    ) -> None:
        self.name, self.p, self.seed, self.is_trained = name, p, seed, is_trained
        self.version = "1"
        self.calls: list[str] = []
        self.asked: list[Comparison] = []
        self.adapted: list[str] = []

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        self.calls.append("fit")

    def adapt(self, users: Sequence[User]) -> None:
        self.adapted += [user.id for user in users]

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        self.asked += comparisons
        return [self.judgment(c) for c in comparisons]

    def judgment(self, comparison: Comparison) -> Judgment:
        draw = rng(self.name, self.seed, comparison.id).random()
        likes_long = int(comparison.user.id[1:]) % 4 == 0
        lengths = [float(len(text)) for text in comparison.responses]
        sign = 1 if likes_long == (draw < self.p) else -1
        scores = [sign * length for length in lengths]
        return judgment_of(comparison, scores, method=self.name, seed=self.seed)


class Dying(Chance):
    """As `Chance`, but behind an engine that answers `n_answers` requests and then no more."""

    def __init__(self, name: str, n_answers: int) -> None:
        super().__init__(name)
        self.n_answers = n_answers

    def judgment(self, comparison: Comparison) -> Judgment:
        self.n_answers -= 1
        if self.n_answers >= 0:
            return super().judgment(comparison)
        return unanswered(comparison, self.name)


def unanswered(comparison: Comparison, method: str) -> Judgment:
    failure = Failure(kind=FailureKind.REQUEST, reason="connection refused")
    return judgment_of(comparison, None, method=method).model_copy(
        update={"failures": (FailedChain(order=(0, 1), failure=failure),)}
    )


class WithChains:
    """P-GenRM around an evaluator, that prefers what is short unless another is given."""

    version = "1"
    is_trained = False

    def __init__(self, name: str, m: int, scorer: Scorer = shorter_is_better) -> None:
        self.name = name
        self._judge = PGenRM(KnownEvaluator(scorer), m)

    def fit(self, train: Sequence[Comparison], validation: Sequence[Comparison]) -> None:
        pass

    def adapt(self, users: Sequence[User]) -> None:
        pass

    def score(self, comparisons: Sequence[Comparison]) -> list[Judgment]:
        return list(self._judge.judge(comparisons))


def run_bench(
    out: Path,
    methods: Sequence[Method],
    data: Dataset | None = None,
    *,
    accept_unanswered: bool = False,
) -> Path:
    """Run methods over the toy data, the n-th of the same name with seed n."""
    data = data or dataset()
    items = open_plan(out, SOURCE, data)
    seeds: dict[str, int] = {}
    for method in methods:
        seed = seeds[method.name] = seeds.get(method.name, -1) + 1
        run_method(
            method,
            Task(method.name, seed),
            data,
            [item.comparison for item in items],
            out,
            accept_unanswered=accept_unanswered,
        )
    return out


def sorted_records(out: Path) -> list[str]:
    """All records of a bench, sorted: equal for equal results."""
    return sorted(
        f"{task} {line}"
        for task, path in find_tasks(out).items()
        for line in path.read_text("utf-8").splitlines()
    )
