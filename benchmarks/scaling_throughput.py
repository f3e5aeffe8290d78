"""How much of a server's capacity judging with neighbours uses: Ind-m,Pro-n through `openai`.

The server and the measure are those of `engine_throughput`. Neighbours come from fitted prototypes
of 100 users. Two cases: every user is known to the prototypes, so that all requests of a comparison
go out at once; and every user is a stranger, for whom one own chain is waited for, embedded and
searched with before the rest goes out. The embedder adds up one random direction per word: what a
real model costs is no part of this.

    python -m benchmarks.scaling_throughput [--json]
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from benchmarks.engine_throughput import comparison, measure, prose, report, server_options
from numpy.typing import NDArray

from pgenrm.attributes.scenario import SCENARIOS
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM
from pgenrm.prototypes.analyses import Analysis
from pgenrm.prototypes.store import Prototypes
from pgenrm.seeding import rng
from pgenrm.types import Comparison

N_USERS = 100
"""`comparison` gives its users as many ids, in turn."""
N_PROTOTYPES = 8


class WordEmbedder:
    """Adds up one random direction per word."""

    name = "words"
    dimension = 64

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        totals = np.stack(
            [np.sum([direction(word) for word in text.split()], axis=0) for text in texts]
        )
        return np.asarray(totals / np.linalg.norm(totals, axis=1, keepdims=True), np.float32)


@cache
def direction(word: str) -> NDArray[np.float64]:
    return rng("direction", word).standard_normal(WordEmbedder.dimension)


def fitted_prototypes() -> Prototypes:
    """Fit prototypes to users with one analysis in every scenario."""
    users = [comparison(i).user for i in range(N_USERS)]
    analyses = [
        Analysis(user_id=user.id, scenario=scenario, text=prose(90, "analysis", user.id, scenario))
        for user in users
        for scenario in SCENARIOS
    ]
    return Prototypes(WordEmbedder(), N_PROTOTYPES, refinement=None).fit(users, analyses)


def of_a_stranger(row: Comparison) -> Comparison:
    user = row.user.model_copy(update={"id": f"stranger {row.id}"})
    return row.model_copy(update={"user": user})


def main() -> None:
    parser = server_options(str(__doc__).splitlines()[0], 10_000)
    parser.add_argument("--n", type=int, default=4, help="neighbours per comparison")
    parser.add_argument("--strangers", type=int, default=2_000, help="comparisons of strangers")
    options = parser.parse_args()
    prototypes = fitted_prototypes()
    known = [comparison(i) for i in range(options.comparisons)]
    strangers = [of_a_stranger(row) for row in known[: options.strangers]]

    def with_neighbours(evaluator: Evaluator) -> PGenRM:
        return PGenRM(evaluator, options.m, options.n, neighbours=prototypes)

    rows = [
        measure("known users", with_neighbours, known, options),
        measure(f"strangers, {len(strangers)}", with_neighbours, strangers, options),
    ]
    report(rows, f"Ind-{options.m},Pro-{options.n}", options)


if __name__ == "__main__":
    main()
