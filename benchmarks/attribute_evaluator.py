"""Speed of the attribute evaluator at m = 8: two presentation orders of four chains each.

Comparisons have two responses and three past choices, all eight texts distinct: real responses
where `../shared/data` exists beside the project, else generated ones of the same lengths. `cold`
meets every text for the first time, `warm` is the same work again. The judge's figures include
pooling and writing every judgment as JSON. One process; all in one run.

    python -m benchmarks.attribute_evaluator [--json] [--comparisons 800]
"""

import argparse
import gzip
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.measure import measure
from pgenrm.evaluator import ChainRequest
from pgenrm.judge import PGenRM
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Preference, User

DATA = Path(__file__).parents[2] / "shared" / "data" / "responses.jsonl.gz"
M = 8
N_PAIRS = 4
"""Per comparison: the candidates and three past choices."""
BATCH_SIZE = 32

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
LENGTHS = (20, 80, 440, 1060, 1840, 3370, 9000)
"""Characters of the real responses at these percentiles, for generated ones."""
SENTENCES = (
    "You might want to start with the second step, for example on a quiet evening.",
    "According to a 2019 study, 40 percent of people never try it.",
    "I am sorry to hear that; it sounds like a hard week.",
    "- **First**: open the `settings` file and check the line that names the port.",
    "Moreover, the results depend on the temperature, the pressure and the material.",
    "## Summary",
    "Would you like me to go on?",
)

Pair = tuple[str, str, str]
"""Instruction and two responses to it."""


# ---------------------------------------------------------------- material


def real_pairs() -> list[Pair]:
    """Read all pairs of responses to one instruction, no response twice, in a fixed order."""
    pairs = []
    with gzip.open(DATA, "rt", encoding="utf-8") as file:
        for row in map(json.loads, file):
            texts = list(dict.fromkeys(row["responses"].values()))
            pairs += [(row["instruction"], *texts[i : i + 2]) for i in range(0, len(texts) - 1, 2)]
    return [pairs[i] for i in rng("pairs").permutation(len(pairs))]


def generated_pairs(n: int) -> list[Pair]:
    """Make n pairs of distinct texts."""
    generator = rng("pairs")

    def text(i: int) -> str:
        n_chars = np.interp(generator.uniform(0, 100), PERCENTILES, LENGTHS)
        return f"Case {i}.\n\n" + "\n".join(generator.choice(SENTENCES, size=int(n_chars / 60) + 1))

    return [(f"What is to be done in case {i}?", text(2 * i), text(2 * i + 1)) for i in range(n)]


def comparison(i: int, pairs: Sequence[Pair]) -> Comparison:
    (query, *responses), *past = pairs
    history = tuple(Preference(context=q, chosen=a, rejected=b) for q, a, b in past)
    return Comparison(
        id=f"c{i}", user=User(id=f"u{i}", history=history), context=query, responses=responses
    )


# ---------------------------------------------------------------- work


def evaluate_all(evaluator: AttributeEvaluator, comparisons: Sequence[Comparison]) -> None:
    for start in range(0, len(comparisons), BATCH_SIZE):
        evaluator.evaluate(
            [
                ChainRequest(
                    id=c.id, user=c.user, context=c.context, responses=responses, n=M // 2, seed=s
                )
                for c in comparisons[start : start + BATCH_SIZE]
                for s, responses in enumerate((c.responses, c.responses[::-1]))
            ]
        )


def judge_all(evaluator: AttributeEvaluator, comparisons: Sequence[Comparison]) -> None:
    for judgment in PGenRM(evaluator, m=M, batch_size=BATCH_SIZE).judge(comparisons):
        judgment.model_dump_json()


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Return wall-clock and processor time."""
    start, cpu_start = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu_start


def run(n_comparisons: int) -> list[dict[str, Any]]:
    n_pairs = 2 * n_comparisons * N_PAIRS
    source = "real" if DATA.exists() else "generated"
    pairs = real_pairs() if DATA.exists() else generated_pairs(n_pairs)
    if len(pairs) < n_pairs:
        raise SystemExit(f"the data has {len(pairs)} pairs, enough for {len(pairs) // 8}")
    made = [comparison(i, pairs[N_PAIRS * i : N_PAIRS * (i + 1)]) for i in range(2 * n_comparisons)]
    evaluator = AttributeEvaluator()
    rows = []
    for part, work in enumerate((evaluate_all, judge_all)):
        mine = made[part::2]
        for cache in ("cold", "warm"):
            time_s, cpu_s = seconds(lambda work=work, mine=mine: work(evaluator, mine))  # type: ignore[misc]
            rows.append(
                {
                    "through": ("evaluator", "judge and JSON")[part],
                    "texts": source,
                    "cache": cache,
                    "comparisons_per_s": round(n_comparisons / time_s),
                    "comparisons_per_cpu_s": round(n_comparisons / cpu_s),
                }
            )
    return rows


def measuring() -> dict[str, float]:
    """Return microseconds for a text of 1,500 characters and milliseconds for one of 1 MB."""
    text = (" ".join(SENTENCES[:3]) + "\n" + "\n".join(SENTENCES[3:]) + "\n\n") * 4
    texts = [f"{i} {text}"[:1500] for i in range(500)]
    many_s, _ = seconds(lambda: list(map(measure, texts)))
    long_s, _ = seconds(lambda: measure(text * (1_000_000 // len(text))))
    return {
        "us_per_1500_chars": round(1e6 * many_s / len(texts)),
        "ms_per_1_mb": round(1e3 * long_s),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--comparisons", type=int, default=800)
    options = parser.parse_args()
    rows = run(options.comparisons)
    times = measuring()
    if options.json:
        print(json.dumps({"rows": rows, "measuring": times}))
        return
    names = ("through", "texts", "cache", "comparisons/s", "per processor second")
    table = Table(*names, title=f"m = {M}")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console()
    console.print(table)
    console.print(
        f"measuring: {times['us_per_1500_chars']} us for 1,500 characters, "
        f"{times['ms_per_1_mb']} ms for 1 MB"
    )


if __name__ == "__main__":
    main()
