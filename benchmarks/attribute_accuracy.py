"""Accuracy of the attribute evaluator beside the Bayes observer: the table of docs/attributes.md.

    python -m benchmarks.attribute_accuracy [--responses FILE] [--comparisons 3000]

Unseen users of seed 201; the fitted population comes from 6,000 train comparisons of seed 0. With
statements: only users who state something. Prints rows of a Markdown table.
"""

import argparse
from pathlib import Path

from pgenrm import AttributeEvaluator, AttributeModel, Comparison, PGenRM, accuracy
from pgenrm.cli.show import percent_of
from pgenrm.sim.observer import oracle, references
from pgenrm.sim.real import GivenResponses
from pgenrm.sim.world import World, without_statements

N_PAIRS = (0, 1, 3, 6)
N_FIT = 6000


def row(model: AttributeModel, m: int, comparisons: list[Comparison]) -> list[str]:
    cells = []
    for n_pairs in N_PAIRS:
        judgments = PGenRM(AttributeEvaluator(model), m, n_history=n_pairs).judge(comparisons)
        cells.append(percent_of(accuracy([(j.user_id, j.outcome) for j in judgments if j.outcome])))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--responses", type=Path, help="let the users choose between these")
    parser.add_argument("--comparisons", type=int, default=3000)
    options = parser.parse_args()
    source = GivenResponses(options.responses) if options.responses else None
    world = World(seed=201, source=source)
    everybody = list(world.comparisons("test_unseen", options.comparisons))
    train = World(seed=0, source=source).comparisons("train", N_FIT)
    models = {"shipped": AttributeModel(), "fitted": AttributeModel().fit(train)}
    for is_shown in (False, True):
        if is_shown:
            comparisons = [c for c in everybody if c.user.criteria or c.user.self_description]
        else:
            comparisons = [without_statements(c) for c in everybody]
        seen = "with statements" if is_shown else "history only"
        print(f"| {seen} (n = {len(comparisons)}) | | | " + " | ".join(map(str, N_PAIRS)) + " |")
        for name, model in models.items():
            for m in (1, 8):
                print(f"| | {name} | {m} | " + " | ".join(row(model, m, comparisons)) + " |")
        bayes = references(comparisons, world, N_PAIRS, with_criteria=is_shown)
        print("| | Bayes observer | | " + " | ".join(percent_of(r.accuracy) for r in bayes) + " |")
        print(f"| | oracle | | {percent_of(oracle(comparisons, world).accuracy)} |", flush=True)


if __name__ == "__main__":
    main()
