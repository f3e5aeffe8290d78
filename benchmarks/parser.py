"""Speed of the chain parser: chains per second on one core, and linearity up to 1 MB.

    python benchmarks/parser.py [--json] [--seconds 5]

Both parts measure processor time of this process, in one run; the first without garbage collection,
as `timeit` does. The first parses a mix of chains of
1.5 to 3 kB in the shares of `MIX`, a thousand a pass. The second parses hostile texts of
64 k to 1 M characters and shows the time of the longest and how it grows per doubling (2 is
linear), on average and at worst.
"""

import argparse
import gc
import json
import random
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from pgenrm.chain import format, parse
from pgenrm.errors import FormatError
from pgenrm.types import EvaluationChain

# ---------------------------------------------------------------- a realistic mix

NAMES = (
    "Directness", "Warmth", "Depth of explanation", "Concrete examples", "Structure",
    "Factual care", "Plain language", "Length",
)  # fmt: skip
REASONS = (
    "opens with the answer and stays with it",
    "two examples from everyday life, both to the point",
    "the second paragraph repeats the first in other words",
    "a numbered list where the user usually prefers prose",
    "names what it does not know, which this user values",
    "friendly without flattery",
)
ANALYSIS = (
    "The user has chosen the shorter of two answers each time, and twice the one that began with "
    "a plain statement. ",
    "Politeness is welcome as long as it does not delay the point; apologies and disclaimers were "
    "rejected in the second example. ",
    "For a practical question like this one, order and completeness of the steps come first. ",
    "There is no sign of a wish for humour, although a light tone was never punished either. ",
    "When the topic was personal, the answer that asked a question back was preferred. ",
)

Rubric = tuple[list[str], list[int], list[list[int]], list[list[str]], list[float]]


def rubric(rng: random.Random) -> Rubric:
    """Draw names, weights, scores [2][n], reasons [2][n] and totals [2]."""
    names = rng.sample(NAMES, rng.randint(3, 5))
    weights = {3: [40, 35, 25], 4: [40, 25, 20, 15], 5: [30, 25, 20, 15, 10]}[len(names)]
    scores = [[rng.randint(2, 10) for _ in names] for _ in range(2)]
    reasons = [rng.sample(REASONS, len(names)) for _ in range(2)]
    totals = [sum(w * s for w, s in zip(weights, row, strict=True)) / 100 for row in scores]
    return names, weights, scores, reasons, totals


def by_response(r: Rubric) -> str:
    names, weights, scores, reasons, totals = r
    lines = ["A. Evaluation Criteria & Weights"]
    lines += [
        f"{i}. {n} ({w}%): {REASONS[i]}"
        for i, (n, w) in enumerate(zip(names, weights, strict=True), 1)
    ]
    lines += ["", "B. Scoring Breakdown"]
    for i in range(2):
        lines.append(f"Response {i + 1}")
        lines += [
            f"- {n}: {s}/10 - {why}."
            for n, s, why in zip(names, scores[i], reasons[i], strict=True)
        ]
        terms = " + ".join(f"({s}*{w / 100})" for s, w in zip(scores[i], weights, strict=True))
        lines.append(f"Final Score = {terms} = {totals[i]}")
    return "\n".join(lines)


def in_markdown(r: Rubric) -> str:
    names, weights, scores, reasons, totals = r
    lines = ["### A. Evaluation Criteria & Weights", ""]
    lines += [f"* **{n}** (Weight: {w}%)" for n, w in zip(names, weights, strict=True)]
    lines += ["", "### B. Scoring Breakdown", ""]
    for i in range(2):
        lines += [f"#### Response {i + 1}", ""]
        lines += [
            f"- **{n}: {s}/10** – {why}"
            for n, s, why in zip(names, scores[i], reasons[i], strict=True)
        ]
        lines += ["", f"**Weighted total: {totals[i]}**", ""]
    return "\n".join(lines)


def by_criterion(r: Rubric) -> str:
    names, weights, scores, reasons, _ = r
    lines = ["A. Evaluation Criteria & Weights"]
    lines += [f"- {n}: {w}%" for n, w in zip(names, weights, strict=True)]
    lines += ["B. Scoring Breakdown"]
    for k, name in enumerate(names):
        lines.append(f"{name}")
        lines += [f"- Response {i + 1}: {scores[i][k]}/10 ({reasons[i][k]})" for i in range(2)]
    return "\n".join(lines)


def as_table(r: Rubric) -> str:
    names, weights, scores, _, totals = r
    lines = ["| Criterion | Weight | Response 1 | Response 2 |", "|---|---|---|---|"]
    lines += [
        f"| {n} | {w}% | {a} | {b} |" for n, w, a, b in zip(names, weights, *scores, strict=True)
    ]
    lines.append(f"| Total | 100% | {totals[0]} | {totals[1]} |")
    return "\n".join(lines)


def one_line(r: Rubric) -> str:
    return ". ".join(line.removesuffix(".") for line in by_response(r).split("\n") if line)


def wire(rationale: Any, r: Rubric) -> str:
    scores = {"response_1": r[4][0], "response_2": r[4][1]}
    value = json.dumps({"rationale": rationale, "better_response": scores}, ensure_ascii=False)
    return f"<JSON_START>\n{value}\n<JSON_END>"


def canonical(r: Rubric) -> str:
    names, weights, scores, reasons, totals = r
    chain = EvaluationChain.model_validate(
        {
            "preferences": "",
            "criteria": [{"name": n, "weight": w} for n, w in zip(names, weights, strict=True)],
            "ratings": [
                [{"score": s, "reason": why} for s, why in zip(row, whys, strict=True)]
                for row, whys in zip(scores, reasons, strict=True)
            ],
            "stated_scores": totals,
        }
    )
    return format(chain)


def nested(r: Rubric) -> str:
    names, weights, scores, reasons, _ = r
    breakdown = {
        f"Response {i + 1}": {
            n: {"score": s, "reason": why}
            for n, s, why in zip(names, scores[i], reasons[i], strict=True)
        }
        for i in range(2)
    }
    criteria = {n: f"{w}%" for n, w in zip(names, weights, strict=True)}
    return wire({"criteria": criteria, "breakdown": breakdown}, r)


MIX: dict[str, tuple[float, Callable[[Rubric], str]]] = {
    "grouped by response": (0.30, lambda r: wire(by_response(r), r)),
    "Markdown": (0.15, lambda r: wire(in_markdown(r), r)),
    "canonical": (0.15, canonical),
    "grouped by criterion": (0.08, lambda r: wire(by_criterion(r), r)),
    "table": (0.05, lambda r: wire(as_table(r), r)),
    "one line": (0.05, lambda r: wire(one_line(r), r)),
    "no breakdown": (0.05, lambda r: wire(" ".join(REASONS), r)),
    "nested rationale": (0.02, nested),
    "fenced, no markers": (
        0.05,
        lambda r: (
            wire(by_response(r), r).replace("<JSON_START>", "```json").replace("<JSON_END>", "```")
        ),
    ),
    "raw newlines": (0.03, lambda r: wire(by_response(r), r).replace("\\n", "\n")),
    "broken JSON": (
        0.04,
        lambda r: (
            wire(by_response(r), r)
            .replace("examples", 'so-called "examples"')
            .replace("}}", ",},}")
        ),
    ),
    "cut off": (0.03, lambda r: wire(by_response(r), r)[:-30]),
}
"""Share of each kind of chain, and how it is written."""


def mixed_chains(n: int, seed: int = 0) -> list[str]:
    """Write chains in the shares of the mix, each after some 900 to 1,500 characters of PART 1."""
    rng = random.Random(seed)
    kinds = rng.choices(
        [write for _, write in MIX.values()], [share for share, _ in MIX.values()], k=n
    )
    chains = []
    for write in kinds:
        analysis = "".join(rng.choice(ANALYSIS) for _ in range(rng.randint(9, 13)))
        thinking = f"<think>\n{analysis}\n</think>\n" if rng.random() < 0.1 else ""
        chains.append(f"{thinking}{analysis}\n\n{write(rubric(rng))}")
    return chains


def throughput(seconds: float) -> dict[str, float]:
    """Parse the mix in passes of processor time; the best pass is the least disturbed one."""
    chains = mixed_chains(1000)
    outcomes = [read(text) for text in chains]
    rates: list[float] = []
    gc.collect()
    gc.disable()  # as timeit does
    end = time.process_time() + seconds
    while time.process_time() < end:
        start = time.process_time()
        for text in chains:
            read(text)
        rates.append(len(chains) / (time.process_time() - start))
    gc.enable()
    read_all = [chain for chain in outcomes if chain is not None]
    return {
        "n_passes": len(rates),
        "chains_per_second_best": max(rates),
        "chains_per_second_median": statistics.median(rates),
        "mean_characters": statistics.mean(map(len, chains)),
        "share_readable": len(read_all) / len(chains),
        "share_with_breakdown": sum(c.rubric_scores is not None for c in read_all) / len(chains),
    }


def read(text: str) -> EvaluationChain | None:
    """Parse a text for two responses; None when it is no chain."""
    try:
        return parse(text, 2)
    except FormatError:
        return None


# ---------------------------------------------------------------- linearity

HOSTILE = {
    "{": "{",
    '"': '"',
    "spaces": " ",
    "<think>": "<think>",
    "<JSON_START>": "<JSON_START>",
    '{"response_1":1,': '{"response_1":1,',
    '{"a":': '{"a":',
    '{"rationale": "': '{"rationale": "',
    '", ': '", ',
    "Response 1: 8/10": "Response 1: 8/10\n",
    "Response 1: no line breaks": "Response 1: 8/10 ",
    "Clarity (50%)": "Clarity (50%)\n",
    "digits": "7",
    "|": "| 8 ",
    "(": "(",
    "*": "*",
    "fences": "```\n",
    "a chain, again and again": mixed_chains(1)[0],
}
LENGTHS = tuple(2**k for k in range(16, 21))
"""Characters: 64 k to 1 M."""
BEGUN = '<JSON_START>{"rationale": "Clarity (50%)\\nDepth (50%)\n'
"""Before the hostile text, so that the readers behind the first are reached."""


def linearity() -> list[dict[str, Any]]:
    """Time each hostile text at doubling lengths, alone and inside a rationale."""
    rows = []
    for name, unit in HOSTILE.items():
        for where, before in (("alone", ""), ("in a rationale", BEGUN)):
            seconds = [
                min(timed(before + unit * (length // len(unit))) for _ in range(3))
                for length in LENGTHS
            ]
            rows.append(
                {
                    "text": name,
                    "where": where,
                    "seconds_at_1M": seconds[-1],
                    "ratio_per_doubling": (seconds[-1] / seconds[0]) ** (1 / (len(LENGTHS) - 1)),
                    "worst_ratio": max(b / a for a, b in pairwise(seconds)),
                }
            )
    return rows


def timed(text: str) -> float:
    """Return the processor seconds of reading one text."""
    start = time.process_time()
    read(text)
    return time.process_time() - start


def main() -> None:
    """Print both tables."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--json", action="store_true", help="print one JSON object")
    options.add_argument("--seconds", type=float, default=5.0, help="how long to parse the mix")
    given = options.parse_args()
    speed, rows = throughput(given.seconds), linearity()
    if given.json:
        print(json.dumps({"throughput": speed, "linearity": rows}, indent=1))
        return
    print(", ".join(f"{name} {share:.0%}" for name, (share, _) in MIX.items()))
    for name, value in speed.items():
        print(f"{name:24} {value:,.2f}")
    print(f"\n{'text':27} {'where':15} {'s at 1 M':>9} {'per doubling':>13} {'worst':>6}")
    for row in rows:
        numbers = (row["seconds_at_1M"], row["ratio_per_doubling"], row["worst_ratio"])
        print(f"{row['text']:27} {row['where']:15}", "{:9.3f} {:13.2f} {:6.2f}".format(*numbers))


if __name__ == "__main__":
    main()
