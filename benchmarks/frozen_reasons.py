"""Why methods on frozen embeddings learn so little of a user: the embeddings, or too few users?

Every method is fitted with its shipped recipe on the world of the bench study and judges unseen
users, as themselves and as somebody else (`+shuffled`). What differs is what a text is to it:

- minilm: the embedding of the bench study;
- attributes: what the simulated texts truly have, and nothing else, so that a user's taste is a
  direction;

and, with attributes, how many users there are to learn from. Accuracy in percent, and what a user's
own history is worth, both with 95 % bootstrap intervals over users.

    python -m benchmarks.frozen_reasons [--methods gpo,vpl,...] [--users 450,1800]
        [--comparisons 1000] [--vectors FILE]
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path

import numpy as np
from benchmarks.baselines_speed import METHODS
from benchmarks.bench_study.steps import WORLD_CONFIG, Sizes
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from pgenrm import Comparison, Judgment
from pgenrm.bench.plan import with_shared_histories
from pgenrm.bench.statistics import Estimate, mean_over_users
from pgenrm.methods.altered import ShuffledUsers
from pgenrm.prototypes.embedder import MINILM, Embedder, SentenceTransformerEmbedder
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.language import read_attributes
from pgenrm.sim.world import Split, World
from pgenrm.types import Outcome


class Attributes:
    """Embeds a text as the attributes of the response in it, -1 and 1."""

    name = "attributes"
    dimension = len(read_attributes(""))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Read texts as `pgenrm.methods.embeddings.View` writes them: [n_texts, dimension]."""
        responses = (text.removeprefix("assistant: ").partition("\n\nuser: ")[0] for text in texts)
        found = [2 * read_attributes(response) - 1 for response in responses]
        return np.array(found, np.float32).reshape(-1, self.dimension)


def rows(
    names: Sequence[str], n_users: Sequence[int], n_asked: int, vectors: Path, console: Console
) -> Iterator[str]:
    """Yield the rows of the table."""
    sizes = Sizes()
    config = WorldConfig.model_validate_json(WORLD_CONFIG.read_text("utf-8"))
    world = World(seed=sizes.world_seed, config=config)
    asked = with_shared_histories(world.comparisons(Split.TEST_UNSEEN, n_asked), None)
    known = {c.user.id: c.user for c in asked}
    minilm = SentenceTransformerEmbedder(MINILM, dtype="bfloat16", cache=vectors)
    conditions: list[tuple[Embedder, int]] = [(minilm, n_users[0])]
    conditions += [(Attributes(), n) for n in n_users]
    jobs = [(name, *condition) for condition in conditions for name in names]
    for name, embedder, n in track(jobs, "fitting", console=console):
        train = list(world.comparisons(Split.TRAIN, n * config.n_train))
        validation = list(world.comparisons(Split.VALIDATION, n * config.n_validation))
        method = METHODS[name](embedder)
        start = time.perf_counter()
        method.fit(train, validation)
        seconds = time.perf_counter() - start
        shuffled = ShuffledUsers(method)
        shuffled.adapt(list(known.values()))
        own, others = (right(of.score(asked), asked) for of in (method, shuffled))
        users = [c.user.id for c in asked]
        worth = mean_over_users(own - others, users)
        yield (
            f"| {name} | {'minilm' if embedder is minilm else embedder.name} | {n:,} | "
            f"{shown(mean_over_users(own, users))} | {shown(worth)} | {seconds:.0f} |"
        )


def right(judgments: Sequence[Judgment], asked: Sequence[Comparison]) -> NDArray[np.float64]:
    """Return 100 where a verdict is right, else 0: [n_comparisons]."""
    found = {judgment.id: judgment.outcome is Outcome.CORRECT for judgment in judgments}
    return np.array([100.0 * found[c.id] for c in asked])


def shown(value: Estimate) -> str:
    """Write a figure with its interval."""
    low, high = value.interval or (value.value, value.value)
    return f"{value.value:.1f} [{low:.1f}, {high:.1f}]"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--users", default="450,1800", help="to learn from, the first for MiniLM")
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument(
        "--vectors", type=Path, default=Path("runs/bench-study/store/vectors.sqlite")
    )
    options = parser.parse_args()
    options.vectors.parent.mkdir(parents=True, exist_ok=True)
    console = Console()
    n_users = [int(n) for n in options.users.split(",")]
    found = list(
        rows(options.methods.split(","), n_users, options.comparisons, options.vectors, console)
    )
    lines = [
        f"{date.today()}, {options.comparisons:,} comparisons of unseen users",
        "",
        "| method | a text is | users | accuracy, % | own history against another's | fit, s |",
        "|---|---|---|---|---|---|",
        *found,
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
