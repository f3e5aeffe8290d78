"""How a judgment looks in a terminal."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pgenrm.accuracy import Accuracy, Tally
from pgenrm.scaling.reliability import reliability
from pgenrm.scaling.stopping import Stage
from pgenrm.types import Comparison, Criterion, Judgment, Outcome
from pgenrm.verdict import typical_chain

BAR_WIDTH = 24
MIN_VERDICTS: Final = 100
"""Fewer say nothing about calibration: ten to each bin of the curve."""
OUTCOME_STYLE = {
    Outcome.CORRECT: "green",
    Outcome.WRONG: "red",
    Outcome.TIE: "yellow",
    Outcome.UNSCORED: "magenta",
}
CONTROL_SIGNS = dict.fromkeys(
    [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)],
    "\ufffd",
)
"""Signs with which a text could rewrite the screen or turn the direction of writing."""


def show_judgment(console: Console, comparison: Comparison, judgment: Judgment) -> None:
    """Print the query, the persona and rubric of one chain, the scores and the verdict."""
    parts: list[RenderableType] = [_query(comparison)]
    if judgment.chains:
        shown = typical_chain(judgment)
        parts += [
            Text(),
            _heading("Persona in this scenario"),
            Text(_plain(shown.chain.preferences)),
        ]
        if shown.chain.criteria:
            parts += [Text(), _heading("Rubric"), _rubric(shown.chain.criteria)]
        if len(judgment.chains) > 1:
            parts += [Text(_among(judgment), style="dim")]
    parts += [Text(), _scores(comparison, judgment), Text(), _verdict(judgment)]
    parts += _effort(judgment)
    parts += [Text(_plain(f"left out: {cut}"), style="dim") for cut in judgment.cuts]
    parts += _failures(judgment)
    title = Text(_plain(f"{judgment.id} · user {judgment.user_id}"))
    console.print(Panel(Group(*parts), title=title, expand=True))


def _among(judgment: Judgment) -> str:
    n_own = sum(judged.neighbour is None for judged in judgment.chains)
    if n_own == len(judgment.chains):
        return f"(the most typical of {n_own} chains)"
    if n_own:
        return f"(the most typical of {n_own} chains with the user's own history)"
    return f"(the most typical of {len(judgment.chains)} chains with similar users' histories)"


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _query(comparison: Comparison) -> Text:
    text = Text("Query  ", style="bold")
    return text.append(_shortened(comparison.context[-1].content, 300), style="not bold")


def _rubric(criteria: Iterable[Criterion]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    criteria = sorted(criteria, key=lambda c: -c.weight)
    total = sum(c.weight for c in criteria) or 1.0
    for criterion in criteria:
        share = criterion.weight / total
        table.add_row(
            Text(f"{share:.0%}", style="cyan", justify="right"),
            Text("█" * max(1, round(share * BAR_WIDTH)), style="cyan"),
            Text(_plain(criterion.name)),
            Text(_plain(criterion.description), style="dim"),
        )
    return table


def _scores(comparison: Comparison, judgment: Judgment) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column("±", justify="right")
    table.add_column("response")
    for i, response in enumerate(comparison.responses):
        score, error = judgment.scores[i], judgment.standard_errors[i]
        table.add_row(
            str(i),
            "-" if score is None else f"{score:.2f}",
            "-" if error is None else f"{error:.2f}",
            Text(_shortened(response, 200)),
            style="bold" if i == judgment.choice else "",
        )
    return table


def _verdict(judgment: Judgment) -> Text:
    text = Text("Verdict  ", style="bold")
    if judgment.choice is not None:
        text.append(f"response {judgment.choice}")
    elif judgment.is_tie:
        text.append("a tie")
    elif judgment.chains:
        text.append("a single response: scored, nothing to choose")
    else:
        text.append("unscored: no readable chain")
    if judgment.confidence is not None:
        kind = "calibrated confidence" if judgment.is_calibrated else "confidence"
        text.append(f", {kind} {judgment.confidence:.2f}", style="not bold")
    if judgment.order_consistency is not None:
        text.append(f", orders agree {judgment.order_consistency:.0%}", style="not bold")
    if judgment.outcome is not None:
        text.append(f"  [{judgment.outcome}]", style=OUTCOME_STYLE[judgment.outcome])
    return text


def _effort(judgment: Judgment) -> list[RenderableType]:
    """Say how many chains there are, whose, and whether they were settled early."""
    similar = [(c.neighbour, c.similarity or 0.0) for c in judgment.chains if c.neighbour]
    if not similar and judgment.is_settled is None:
        return []
    text = Text("Chains  ", style="bold")
    text.append(f"{len(judgment.chains) - len(similar)} own", style="not bold")
    if similar:
        text.append(
            f", {len(similar)} of similar users with {judgment.neighbour_weight:.0%} of the score",
            style="not bold",
        )
    if judgment.is_settled is not None:
        ending = "settled early" if judgment.is_settled else "undecided up to the caps"
        text.append(f"; {ending}", style="not bold")
    parts: list[RenderableType] = [text]
    if similar:
        names = ", ".join(f"{_shortened(name, 40)} ({cosine:.2f})" for name, cosine in similar)
        outside = f"; {judgment.n_outside} from other prototypes" if judgment.n_outside else ""
        where = f"prototype {judgment.prototype}{outside}"
        parts.append(Text(f"  similar: {names}; {where}", style="dim"))
    return parts


def _failures(judgment: Judgment) -> list[RenderableType]:
    if not judgment.failures:
        return []
    n = len(judgment.failures)
    reasons = dict.fromkeys(_shortened(f.failure.reason, 200) for f in judgment.failures)
    return [
        Text(f"{n} of {n + len(judgment.chains)} chains failed", style="red"),
        *(Text(f"  {reason}", style="red") for reason in reasons),
    ]


def show_tally(console: Console, tally: Tally, caps: Stage | None = None) -> None:
    """Print how many were judged, with how much effort, and where labels are known, how well.

    Args:
        console: where to.
        tally: of the whole run.
        caps: most chains per comparison, with sequential stopping.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    unscored = f", {tally.n_unscored} unscored" if tally.n_unscored else ""
    say(f"judged {tally.n_judged}{unscored}")
    if caps and tally.n_judged:
        n_chains = np.array(sorted(tally.n_chains.elements()))
        say(
            f"chains per comparison: mean {n_chains.mean():.1f}, 90th percentile "
            f"{np.quantile(n_chains, 0.9, method='inverted_cdf')} (at most {caps.m + caps.n})"
        )
    result = tally.accuracy()
    if result is None:
        return
    decided = "-" if result.decided_accuracy is None else f"{result.decided_accuracy:.1%}"
    say(
        f"accuracy {percent(result.accuracy, result.interval)} on {result.n} labelled comparisons "
        f"of {result.n_users} users; coverage {result.coverage:.1%}, ties {result.tie}, "
        f"unscored {result.unscored}; without ties and unscored {decided}"
    )
    if len(tally.confidences) >= MIN_VERDICTS:
        error = reliability(tally.confidences, tally.are_right).expected_calibration_error
        say(f"expected calibration error {error:.1%} on {len(tally.confidences)} verdicts")


def percent(share: float, interval: tuple[float, float] | None) -> str:
    """Write a share with its interval.

    >>> percent(0.755, (0.71, 0.8))
    '75.5% [71.0, 80.0]'
    """
    if interval is None:
        return f"{share:.1%}"
    return f"{share:.1%} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def percent_of(result: Accuracy) -> str:
    """Write an accuracy in percent with its interval, without the sign."""
    return percent(result.accuracy, result.interval).replace("%", "")


def _plain(text: str) -> str:
    return text.translate(CONTROL_SIGNS)


def _shortened(text: str, n_chars: int) -> str:
    text = " ".join(_plain(text).split())
    return text if len(text) <= n_chars else text[: n_chars - 1].rstrip() + "…"
