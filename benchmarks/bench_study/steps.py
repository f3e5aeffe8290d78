"""The commands of the study, in order. All sizes, seeds and names of methods stand here."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pgenrm.bench.rows import ROWS, Kind
from pgenrm.methods.judges import ROWS as JUDGES

WORLD_CONFIG: Final = Path(__file__).parent / "world.json"
REWARD_RECIPE: Final = Path(__file__).parent / "reward_model.toml"
HISTORY_SIZES: Final = (0, 1, 2, 3, 4, 8)
"""Past choices shown: table 12 and, as learnt methods want more, twice its most."""

LEARNT: Final = ("gpo", "vpl", "pal-a", "pal-b", "lore")
PUBLISHED: Final = tuple(
    f"{name}-published" for name in LEARNT if name != "pal-b"
)  # pal-b has no published form that could be run, see `pgenrm.methods.pal`
OURS: Final = tuple(row.name for row in ROWS if row.kind is Kind.OURS)
CONTROLS: Final = tuple(row.name for row in ROWS if row.kind in {Kind.CONTROL, Kind.REFERENCE})
PERSONALISED: Final = (*LEARNT, *PUBLISHED, "pgenrm-ind8", "pgenrm-ind8-pro4", "bayes-observer")
"""Methods that learn or read something of each user, in the bench without a language model."""
FLIPPED: Final = ("gpo", "lore", "pgenrm-ind8", "bayes-observer")
"""Those that are also run with every past choice turned round."""
PERSONALISED_BY_MODEL: Final = ("judge-psi", "pgenrm-ind8", "pgenrm-ind8-pro4")
PERSONALISED_JUDGES: Final = tuple(
    name for name in JUDGES if name not in {"judge-default", "judge-cot", "judge-psi"}
)
NANO: Final = "nano"
PLAIN: Final = "nano:plain"
"""Of the bundled judge's size, taught the prompts of other judges and no chain."""
PLAIN_TOKENS: Final = 128
"""Of an answer, so that past choices and worked examples fit beside it."""
NOT_RUN: Final = {
    "reward-model-personas": "SynthesizeMe would have to ask the model up to some 200 times for "
    "each training user",
}
"""Rows of table 1 that the study leaves out, and why."""


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    n_users: int = 750
    """Two in five are unseen."""
    world_seed: int = 511
    """No world of the pilots that settled the recipes."""
    n_seeds: int = 3
    """Runs of every method that learns from others."""
    n_model: int = 160
    """Comparisons of each split that the language model judges with chains."""
    n_judges: int = 100
    """... under the prompts of other judges."""
    n_synthesize_me: int = 10
    """... where it is asked up to some 200 times for each user."""
    n_calibration: int = 60
    """Validation comparisons that P-GenRM is calibrated on where the language model writes."""


TINY: Final = Sizes(
    n_users=60,
    n_seeds=1,
    n_model=4,
    n_judges=2,
    n_synthesize_me=1,
    n_calibration=40,
)
"""For trying the study out; its numbers mean nothing."""


@dataclass(frozen=True)
class Bench:
    """One `pgenrm bench` of the study."""

    name: str
    methods: tuple[str, ...]
    model: str | None = None
    """None: no language model; P-GenRM's chains are the attribute evaluator's."""
    limit: int | None = None
    n_history: int | None = None
    n_seeds: int = 1
    n_calibration: int | None = None
    reward_base: str | None = None
    max_tokens: int | None = None

    def command(self, out: Path, sizes: Sizes) -> list[str]:
        """Return the arguments of `pgenrm`."""
        given = {
            "--methods": ",".join(self.methods),
            "--seeds": self.n_seeds,
            "--seed": sizes.world_seed,
            "--limit": self.limit,
            "--history": self.n_history,
            "--model": self.model,
            "--max-tokens": self.max_tokens,
            "--calibration": self.n_calibration,
            "--reward-base": self.reward_base,
            "--reward-recipe": os.path.relpath(REWARD_RECIPE) if self.reward_base else None,
            "--embed-dtype": "bfloat16",
            "--processes": 1 if self.model else None,  # the others find its completions
            "--store": out / "store",
            "--out": out / self.name,
        }
        options = [text for k, v in given.items() if v is not None for text in (k, str(v))]
        return ["bench", "sim", "--folder", str(out / "world"), *options]


def simulate(out: Path, sizes: Sizes) -> list[str]:
    """Return the arguments of `pgenrm` that make the world."""
    options = {"--users": sizes.n_users, "--seed": sizes.world_seed, "--config": WORLD_CONFIG}
    return [
        "simulate",
        *(text for k, v in options.items() for text in (k, str(v))),
        *("--out", str(out / "world")),
    ]


def benches(sizes: Sizes, model: str | None, reward_base: str | None) -> Iterator[Bench]:
    """Yield the benches.

    Args:
        sizes: of all of them.
        model: language model of judges and of P-GenRM; None leaves its benches out.
        reward_base: language model that the reward model is fine-tuned from; None leaves it out.
    """
    learnt = (*LEARNT, *PUBLISHED, *(("reward-model",) if reward_base else ()))
    yield Bench(
        "all",
        (
            *(*learnt, *OURS, *CONTROLS, *_shuffled(PERSONALISED)),
            *(f"{name}+flipped" for name in FLIPPED),
        ),
        n_seeds=sizes.n_seeds,
        reward_base=reward_base,
    )
    for n in HISTORY_SIZES:
        methods = (*LEARNT, *PUBLISHED, *OURS[: 1 if n else 2], "bayes-observer")
        yield Bench(f"history-{n}", methods, n_history=n)
    if model is None:
        return
    of_model = Bench("model", (), model, n_calibration=sizes.n_calibration)
    yield replace(
        of_model,
        methods=(*OURS, "judge-psi", *_shuffled(PERSONALISED_BY_MODEL), *LEARNT, *CONTROLS),
        limit=sizes.n_model,
    )
    is_nano = model == NANO
    of_judges = replace(
        of_model,
        model=PLAIN if is_nano else model,
        max_tokens=PLAIN_TOKENS if is_nano else None,
    )
    yield replace(
        of_judges,
        name="model-judges",
        methods=(*JUDGES, *_shuffled(PERSONALISED_JUDGES)),
        limit=sizes.n_judges,
    )
    yield replace(
        of_judges,
        name="model-synthesize-me",
        methods=("synthesize-me",),
        limit=sizes.n_synthesize_me,
    )
    for n in HISTORY_SIZES:
        yield replace(
            of_model,
            name=f"model-history-{n}",
            methods=("pgenrm",) if n else ("pgenrm", *PERSONALISED_BY_MODEL[:2]),
            limit=sizes.n_model,
            n_history=n,
        )


def _shuffled(names: Sequence[str]) -> list[str]:
    return [f"{name}+shuffled" for name in names]
