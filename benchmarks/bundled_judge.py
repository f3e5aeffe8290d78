"""What the bundled judge can do: the figures of docs/training.md and of its model card.

Unseen users of a world that nothing was trained on judge as `pgenrm judge --model nano` does; every
judgment is kept, so that a killed run goes on. Printed and written as Markdown:

- targets: chains readable, own arithmetic right, accuracy of one chain and of the mean of eight,
  as shares of what a Bayes observer gains over guessing; history of another user;
- which steps of PART 1 follow from the steps before (`pgenrm.nano.check`);
- accuracy by past choices, with and without own words, beside the Bayes observer, and with three
  and four responses.

    python -m benchmarks.bundled_judge [--model nano] [--comparisons 3000]

All intervals are 95 % bootstrap intervals over users.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.nano_judging import judged, single_right
from benchmarks.nano_steps import guesses_follow, right_by_scores, steps_right, with_steps_right
from benchmarks.scaling_study.setting import with_others_history
from numpy.typing import NDArray
from rich.console import Console

from pgenrm import Comparison, Judgment
from pgenrm.bench.statistics import Estimate, estimate, mean_over_users, resample
from pgenrm.nano.practice import comparisons as wide_comparisons
from pgenrm.sim.observer import references
from pgenrm.sim.world import Split, World, without_statements
from pgenrm.types import Arithmetic, Outcome

WORLD_SEED: Final = 401
JUDGE_SEED: Final = 1
N_STEPS_CHECKED: Final = 500
"""Comparisons whose chains are checked step by step."""


@dataclass(frozen=True)
class Job:
    """One pass over comparisons."""

    name: str
    model: str
    h: int
    m: int
    share: float = 1.0
    """Of the comparisons."""
    is_shown: bool = False
    """Whether users' own words are."""
    is_shuffled: bool = False
    """Whether users come with the past choices of others."""
    n_responses: int = 2

    def given(self, world: World, n: int) -> list[Comparison]:
        """Return what is judged."""
        found = islice(
            wide_comparisons(world, JUDGE_SEED, Split.TEST_UNSEEN, self.n_responses),
            int(n * self.share),
        )
        made = list(found) if self.is_shown else [without_statements(c) for c in found]
        return with_others_history(made) if self.is_shuffled else made


def jobs(model: str, base: str) -> list[Job]:
    """List the passes, the most important first."""
    return [
        Job("own", model, 3, 8),
        Job("nobody", model, 0, 2, share=1 / 2),
        Job("shuffled", model, 3, 2, share=1 / 2, is_shuffled=True),
        Job("own-words", model, 3, 2, share=1 / 20, is_shown=True),
        *(Job(f"choices-{h}", model, h, 2, share=1 / 20) for h in (1, 2, 4, 6)),
        *(Job(f"of-{k}", model, 3, 8, share=1 / 50, n_responses=k) for k in (3, 4)),
        Job("base", base, 3, 2, share=1 / 60),
    ]


def judged_in(job: Job, given: Sequence[Comparison], out: Path, console: Console) -> list[Judgment]:
    """Judge, going on with what is there."""
    return judged(
        given,
        out / f"{job.name}.jsonl",
        model=job.model,
        m=job.m,
        n_history=job.h,
        seed=JUDGE_SEED,
        settings={"world": WORLD_SEED, **vars(job)},
        console=console,
    )


# ---------------------------------------------------------------- what is counted


def by_user(users: Sequence[str], *columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum columns [n_comparisons] by user, with the number of comparisons: [n_users, 1 + ...]."""
    _, owner = np.unique(users, return_inverse=True)
    values = (np.ones(len(users)), *columns)
    return np.stack([np.bincount(owner, weights=column) for column in values], axis=1)


def pooled_right(judgments: Sequence[Judgment]) -> NDArray[np.float64]:
    """Whether each verdict is right; ties and unscored ones are not."""
    return np.array([j.outcome is Outcome.CORRECT for j in judgments], float)


def gain_share(
    users: Sequence[str], right: NDArray[np.float64], bayes: NDArray[np.float64]
) -> Estimate | None:
    """Return (a - 50) / (B - 50), with the Bayes observer judging the same comparisons."""
    n, a, b = resample(by_user(users, right, bayes)).T
    return estimate((a / n - 0.5) / (b / n - 0.5), len(set(users)))


def mean(users: Sequence[str], values: NDArray[np.float64]) -> Estimate:
    """Return a mean in percent, or in percentage points where values are differences."""
    return mean_over_users(100 * values, users)


def chains_of(judgments: Iterable[Judgment]) -> tuple[int, int, int]:
    """Count chains asked for, readable ones, and those with consistent arithmetic."""
    asked = readable = consistent = 0
    for judgment in judgments:
        asked += len(judgment.chains) + len(judgment.failures)
        readable += len(judgment.chains)
        consistent += sum(j.chain.arithmetic is Arithmetic.CONSISTENT for j in judgment.chains)
    return asked, readable, consistent


# ---------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Row:
    """Accuracy in percent under one condition."""

    condition: str
    n: int
    n_users: int
    m: int
    judge: Estimate | None
    single: Estimate | None
    bayes: Estimate | None


class Study:
    """All passes, judged."""

    def __init__(self, passes: Sequence[Job], n: int, out: Path, console: Console) -> None:
        """Judge what is not judged yet."""
        self.world = World(seed=WORLD_SEED)
        self.jobs = {job.name: job for job in passes}
        self.given = {name: job.given(self.world, n) for name, job in self.jobs.items()}
        self.judgments = {
            name: judged_in(job, self.given[name], out, console) for name, job in self.jobs.items()
        }

    def users(self, name: str) -> list[str]:
        """Return whose comparisons a pass judged."""
        return [c.user.id for c in self.given[name]]

    def bayes_right(self, name: str) -> NDArray[np.float64]:
        """Whether the Bayes observer is right, seeing what the judge of the pass saw."""
        given, job = self.given[name], self.jobs[name]
        [found] = references(
            given, self.world, [job.h], with_criteria=job.is_shown, seed=JUDGE_SEED
        )
        labels = np.array([c.label for c in given])
        right = (np.array(found.probabilities) < 0.5) == labels
        return np.where(right, 1.0, 0.0)

    def row(self, name: str, condition: str) -> Row:
        """Sum a pass up."""
        users, judgments, job = self.users(name), self.judgments[name], self.jobs[name]
        return Row(
            condition=condition,
            n=len(users),
            n_users=len(set(users)),
            m=job.m,
            judge=mean(users, pooled_right(judgments)),
            single=mean(users, single_right(judgments)),
            bayes=None
            if job.is_shuffled or job.n_responses > 2
            else mean(users, self.bayes_right(name)),
        )

    def rows(self) -> list[Row]:
        """Sum all passes up."""
        shown = [(f"choices-{h}", f"{h} past choices") for h in (1, 2, 4, 6)]
        return [
            self.row("nobody", "no past choices"),
            *(self.row(name, words) for name, words in shown[:2]),
            self.row("own", "3 past choices"),
            *(self.row(name, words) for name, words in shown[2:]),
            self.row("own-words", "3 past choices and own words"),
            self.row("shuffled", "3 past choices of another user"),
            *(
                self.row(f"of-{k}", f"3 past choices, {k} responses (guessing: {100 / k:.0f})")
                for k in (3, 4)
            ),
            self.row("base", "3 past choices, before it was taught to judge (nano:base)"),
        ]

    def targets(self) -> dict[str, Estimate | float | None]:
        """Return the figures that were aimed at."""
        own, users = self.judgments["own"], self.users("own")
        asked, readable, consistent = chains_of(own)
        bayes = self.bayes_right("own")
        # Chain by chain: two chains in opposite orders that know nothing often tie.
        others = single_right(self.judgments["shuffled"]) - single_right(self.judgments["nobody"])
        return {
            "chains readable, %": 100 * readable / asked,
            "own arithmetic right, %": 100 * consistent / readable if readable else 0.0,
            "share of the Bayes observer's gain, one chain": gain_share(
                users, single_right(own), bayes
            ),
            "share of the Bayes observer's gain, m = 8": gain_share(
                users, pooled_right(own), bayes
            ),
            "another user's past choices against none, points": mean(self.users("nobody"), others),
            "tokens of a chain": float(np.mean([c.n_tokens for j in own for c in j.chains])),
        }

    def steps(self) -> dict[str, float]:
        """Return the share of chains that have each step right, in percent."""
        part = slice(N_STEPS_CHECKED)
        return steps_right(self.given["own"][part], self.judgments["own"][part], self.world)

    def losses(self) -> list[tuple[str, Estimate | None, Estimate | None]]:
        """Return accuracies of one chain and of eight where other steps than leanings are right."""
        given, own, users = self.given["own"], self.judgments["own"], self.users("own")
        labels = [c.label for c in given]
        rows: list[tuple[str, Estimate | None, Estimate | None]] = [
            ("as written", mean(users, single_right(own)), mean(users, pooled_right(own)))
        ]
        words = {"own": "its leanings, all other steps right", "teacher": "the teacher's, too"}
        for name, scores in with_steps_right(given, own, self.world, JUDGE_SEED).items():
            single, pooled = (
                mean(users, right_by_scores(scores, labels, is_single=is_single))
                for is_single in (True, False)
            )
            rows.append((words[name], single, pooled))
        return rows


AIMS: Final = (">= 99.5", ">= 98", ">= 0.80", ">= 0.93", "within 2", "")


def shown(value: Estimate | float | None, digits: int = 1) -> str:
    """Write a figure with its interval."""
    if value is None:
        return ""
    if not isinstance(value, Estimate):
        return f"{value:.{digits}f}"
    if value.interval is None:
        return f"{value.value:.{digits}f}"
    low, high = value.interval
    return f"{value.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def markdown(study: Study, command: str) -> str:
    """Write the tables."""
    n, n_users = len(study.given["own"]), len(set(study.users("own")))
    lines = [
        f"`{command}`, {date.today()}: world {WORLD_SEED}, seed {JUDGE_SEED}, {n:,} comparisons of "
        f"{n_users} unseen users; 95 % intervals over users.",
        "",
        "| figure | aim | measured |",
        "|---|---|---|",
    ]
    for (name, value), aim in zip(study.targets().items(), AIMS, strict=True):
        lines.append(f"| {name} | {aim} | {shown(value, 3 if 'share' in name else 1)} |")
    lines += [
        "",
        "| condition | comparisons | chains | judge, % | one chain, % | Bayes observer, % |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.condition} | {row.n:,} | {row.m} | {shown(row.judge)} | {shown(row.single)} | "
        f"{shown(row.bayes)} |"
        for row in study.rows()
    ]
    lines += [
        "",
        f"Steps of {min(n, N_STEPS_CHECKED):,} comparisons' chains that follow from the steps "
        "before them, in percent:",
        "",
        "| step | right |",
        "|---|---|",
        *(f"| {step} | {value:.1f} |" for step, value in study.steps().items()),
        "",
        "Leanings are a guess, of which the table counts the form alone. Their rank correlation "
        f"with the chain's own sums is {guesses_follow(study.judgments['own']):.2f}. What they "
        "cost:",
        "",
        "| chains | one chain, % | m = 8, % |",
        "|---|---|---|",
        *(f"| {name} | {shown(one)} | {shown(eight)} |" for name, one, eight in study.losses()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--base", default="nano:base", help="the model before any judging")
    parser.add_argument("--comparisons", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("runs/bundled-judge"))
    options = parser.parse_args()
    console = Console()
    passes = jobs(options.model, options.base)
    study = Study(passes, options.comparisons, options.out, console)
    command = " ".join(["python -m benchmarks.bundled_judge", *sys.argv[1:]])
    text = markdown(study, command)
    (options.out / "tables.md").write_text(text, "utf-8")
    console.print(text, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
