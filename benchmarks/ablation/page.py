"""The tables and the picture of the ablation, and the page that holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from benchmarks.ablation.judging import FEWER, MAIN, STATED, Figures, Floats, Pass, Questions
from benchmarks.ablation.variants import BASE, CRE, CURRICULUM, REWARDS, SFT
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pgenrm.bench.statistics import Estimate, estimate, resample, share

LADDER: Final = (BASE, SFT, *list(REWARDS)[:2], CRE, CURRICULUM)
PICTURE: Final = "ablation.svg"
INTRODUCTION: Final = """\
# What each stage of training brings

Tables 3 and 7 of the paper, repeated with the bundled judge in the simulated world: written by
`make ablation`, which trains every variant from the same SFT weights. Unseen users of a world that
nothing was trained on judge the same comparisons by the same seeds; numbers of variants with
several seeds are means over them, intervals are 95 % over users, and differences are paired.

- *one chain*: share of the chains asked for that put the chosen response first on their own.
- *hard*: the third of the comparisons that a Bayes observer, who sees what the judge sees, is least
  sure of.
- *persona*: Spearman's correlation of the rubric's weights with what the user truly wants, over the
  attributes in which the responses differ (three or more). Where the rubric of a comparison names
  none of them there is none; *known* is the share of comparisons that have one, and *against SFT*
  is over those that have one under both judges.
- The curriculum goes on from CRE for half as many steps: what it adds holds longer training, too.
"""

Users = Sequence[str] | NDArray[np.str_]
"""[n]; whose comparison each is."""


@dataclass(frozen=True)
class Results:
    """Everything that was judged."""

    questions: Questions
    figures: Mapping[str, Mapping[str, Sequence[Figures]]]
    """Name of a judge -> name of a pass -> one per seed."""
    m: int

    def of(self, name: str, one: Pass) -> Figures:
        """Return the mean over the seeds."""
        return Figures.mean(self.figures[name][one.name])


def mean(users: Users, values: Floats) -> Estimate | None:
    """Return the mean of the values [n] that are defined, with its interval over users."""
    total, n = _sums(users, values)
    return estimate(share(total, n), len(set(users)))


def closed(users: Users, start: Floats, now: Floats, goal: Floats) -> Estimate | None:
    """Return the share of the way from `start` to `goal` that `now` has gone, in percent."""
    (way, n), (whole, _) = _sums(users, now - start), _sums(users, goal - start)
    with np.errstate(divide="ignore", invalid="ignore"):
        return estimate(100 * (way / n) / (whole / n), len(set(users)))


def _sums(users: Users, values: Floats) -> tuple[Floats, Floats]:
    _, owner = np.unique(users, return_inverse=True)
    is_known = ~np.isnan(values)
    columns = (np.where(is_known, values, 0), is_known)
    total, n = resample(np.stack([np.bincount(owner, column) for column in columns], axis=1)).T
    return total, n


# ---------------------------------------------------------------- tables


def page(results: Results, command: str) -> str:
    """Write the page."""
    n, n_users = (len(results.questions.given(MAIN)), len(set(results.questions.users(MAIN))))
    return "\n".join(
        [
            INTRODUCTION,
            f"`{command}`: {n:,} comparisons of {n_users} users, {results.m} chains each.",
            "",
            f"![Accuracy of each stage](figures/{PICTURE})",
            "",
            "## Stages (table 3)",
            "",
            *_stages(results),
            "",
            "## Past choices",
            "",
            *_choices(results),
            "",
            "## Criteria given, withheld, recovered",
            "",
            "Users who say something of themselves, with 3 past choices. *Recovered* is how much "
            "of what SFT loses when their words are withheld is won back without them, in percent.",
            "",
            *_criteria(results),
            "",
            "## Weights of the rewards (table 7)",
            "",
            *_weights(results),
            "",
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def shown(found: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    """Write a figure with its interval."""
    if found is None:
        return "-"
    text = f"{scale * found.value:.{digits}f}"
    if found.interval is None:
        return text
    low, high = (f"{scale * end:.{digits}f}" for end in found.interval)
    return f"{text} [{low}, {high}]"


def _stages(results: Results) -> list[str]:
    users, hard = np.array(results.questions.users(MAIN)), results.questions.hard
    start = results.of(SFT, MAIN)
    rows = []
    for name in LADDER:
        found = results.of(name, MAIN)
        seeds = [100 * run.right.mean() for run in results.figures[name][MAIN.name]]
        rows.append(
            [
                name,
                shown(mean(users, found.right)),
                ", ".join(f"{value:.1f}" for value in seeds),
                shown(mean(users, found.right - start.right)),
                shown(mean(users, found.one_right)),
                shown(mean(users[hard], found.right[hard])),
                shown(mean(users, found.agreement), 1, 2),
                f"{100 * (~np.isnan(found.agreement)).mean():.0f}",
                shown(mean(users, found.agreement - start.agreement), 1, 2),
                f"{100 * found.readable.mean():.1f}",
            ]
        )
    bayes = (results.questions.bayes(MAIN) > 0.5).astype(float)
    observer = [shown(mean(users, bayes)), "", shown(mean(users, bayes - start.right)), ""]
    rows.append(["Bayes observer", *observer, shown(mean(users[hard], bayes[hard])), *[""] * 4])
    head = ["judge", "accuracy, %", "by seed", "against SFT, points", "one chain, %"]
    head += ["hard, %", "persona", "known, %", "against SFT", "readable, %"]
    return _table(head, rows)


def _choices(results: Results) -> list[str]:
    passes = sorted((MAIN, *FEWER), key=lambda one: one.n_choices)
    n = min(len(results.questions.given(one)) for one in passes)

    def row(name: str) -> list[str]:
        rights = (results.of(name, one).right[:n] for one in passes)
        return [shown(mean(results.questions.users(MAIN)[:n], right)) for right in rights]

    head = ["judge", *(f"{one.n_choices}" for one in passes)]
    return _table(head, [[name, *row(name)] for name in (SFT, CRE, CURRICULUM)])


def _criteria(results: Results) -> list[str]:
    users, stating = results.questions.users(STATED), results.questions.stating
    start, goal = results.of(SFT, MAIN).right[stating], results.of(SFT, STATED).right
    rows = []
    for name in LADDER[1:]:
        given, withheld = results.of(name, STATED).right, results.of(name, MAIN).right[stating]
        recovered = "" if name == SFT else shown(closed(users, start, withheld, goal), 1, 0)
        rows.append([name, shown(mean(users, given)), shown(mean(users, withheld)), recovered])
    return _table(["judge", "given, %", "withheld, %", "recovered, %"], rows)


def _weights(results: Results) -> list[str]:
    users = results.questions.users(MAIN)
    rows = []
    for name, (alpha, beta) in REWARDS.items():
        found = results.of(name, MAIN)
        persona = shown(mean(users, found.agreement), 1, 2)
        rows.append([f"{alpha:g}", f"{beta:g}", shown(mean(users, found.right)), persona])
    return _table(["alpha (process)", "beta (outcome)", "accuracy, %", "persona"], rows)


# ---------------------------------------------------------------- picture


def picture(results: Results) -> Figure:
    """Draw the accuracy of each stage, of all comparisons and of the hard ones."""
    users, hard = np.array(results.questions.users(MAIN)), results.questions.hard
    canvas = Figure(figsize=(7, 3.4), layout="constrained")
    axes = canvas.subplots()
    for words, part, colour, offset in (
        ("all", np.ones(len(hard), bool), "#4477aa", -0.12),
        ("hard", hard, "#b5651d", 0.12),
    ):
        for i, name in enumerate(LADDER):
            found = mean(users[part], results.of(name, MAIN).right[part])
            if found is None:
                continue
            low, high = found.interval or (found.value, found.value)
            axes.errorbar(
                100 * found.value,
                i + offset,
                xerr=[[100 * (found.value - low)], [100 * (high - found.value)]],
                color=colour,
                marker="o",
                markersize=5,
                capsize=2,
                label=words if i == 0 else None,
            )
        bayes = (results.questions.bayes(MAIN)[part] > 0.5).mean()
        axes.axvline(100 * bayes, color=colour, linestyle="--", linewidth=1)
    axes.axvline(50, color="#777777", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(LADDER)), LADDER)
    axes.invert_yaxis()
    axes.set_xlabel("accuracy, % (dashed: Bayes observer)")
    axes.grid(alpha=0.25, axis="x")
    axes.legend()
    return canvas
