"""The judges that are compared: those of the stages, and those that lack a part of the reward.

All start from the same SFT weights. Those of CRE are trained on the same comparisons for as many
steps; the curriculum goes on from CRE for half as many more, on another world.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from pgenrm.errors import InputError
from pgenrm.train.bundled_rows import CURRICULUM_PART, RL_PART, WIDE, write_world
from pgenrm.train.coverage import WORDS, WorldCoverage
from pgenrm.train.curriculum import train_curriculum
from pgenrm.train.recipe import load_recipe
from pgenrm.train.record import MODEL_DIR
from pgenrm.train.rl import train_rl
from pgenrm.train.rl_recipe import CurriculumRecipe, RlRecipe

REWARDS: Final = {
    "+ CRE without process reward": (0.0, 1.0),
    "+ CRE without outcome reward": (1.0, 0.0),
    "+ CRE, both at 0.5": (0.5, 0.5),
    "+ CRE": (0.5, 1.0),
}
"""Name -> (alpha, beta)."""
N_GENERATIONS: Final = 8
"""Completions of a group."""
BASE: Final = "base"
SFT: Final = "SFT"
CRE: Final = "+ CRE"
CURRICULUM: Final = "+ CRE + curriculum"


@dataclass(frozen=True)
class Sizes:
    """How much each variant is trained."""

    n_steps: int
    """Of CRE; the curriculum has half as many."""
    n_completions: int
    """Per step."""
    n_users: int
    """Of the worlds that are learned from."""
    n_seeds: int


@dataclass(frozen=True)
class Trained:
    """A judge to be compared."""

    name: str
    """As in the tables."""
    seed: int | None
    """None where nothing is drawn: all seeds start there."""
    weights: Path

    @property
    def label(self) -> str:
        """Name it in file names."""
        words = self.name.replace("+", "and").replace(",", "").replace(".", "").split()
        return "-".join([*words, *([] if self.seed is None else [str(self.seed)])])


def train_all(source: Path, out: Path, sizes: Sizes, console: Console) -> Iterator[Trained]:
    """Train what is not trained yet, and yield every judge.

    Args:
        source: where the bundled judge was made, with the stages `base` and `sft`.
        out: where the runs go.
        sizes: of the runs.
        console: where progress is shown.

    Raises:
        InputError: there are no such stages.
    """
    for stage in ("base", "sft"):
        if not (source / stage / MODEL_DIR).is_dir():
            raise InputError(f"{source} has no weights of the stage {stage}: make train-nano first")
    yield Trained(BASE, None, source / "base" / MODEL_DIR)
    start = source / "sft" / MODEL_DIR
    yield Trained(SFT, None, start)
    world = write_world(out / "worlds" / "rl", sizes.n_users, 0, RL_PART)
    other = write_world(out / "worlds" / "curriculum", sizes.n_users, 0, CURRICULUM_PART)
    for seed in range(sizes.n_seeds):
        for name, rewards in REWARDS.items():
            console.rule(f"{name}, seed {seed}")
            one = Trained(name, seed, start)
            weights = _cre(one, rewards, world, out / one.label, sizes, console)
            yield Trained(name, seed, weights)
            if name == CRE:
                console.rule(f"{CURRICULUM}, seed {seed}")
                one = Trained(CURRICULUM, seed, weights)
                yield Trained(
                    CURRICULUM, seed, _curriculum(one, other, out / one.label, sizes, console)
                )


def _cre(
    one: Trained,
    rewards: tuple[float, float],
    world: Path,
    out: Path,
    sizes: Sizes,
    console: Console,
) -> Path:
    alpha, beta = rewards
    judge = [f"judge.world={world}"] if alpha else ["judge="]
    overrides = [*_common(one, world, sizes.n_steps, sizes), *judge]
    train_rl(
        load_recipe("nano/rl", RlRecipe, [*overrides, f"alpha={alpha}", f"beta={beta}"]),
        out,
        judge=WorldCoverage.load(world, WORDS["nano"]) if alpha else None,
        resume=True,
        console=console,
    )
    return out / MODEL_DIR


def _curriculum(one: Trained, world: Path, out: Path, sizes: Sizes, console: Console) -> Path:
    n_steps = -(-sizes.n_steps // 2)
    overrides = [
        *_common(one, world, n_steps, sizes),
        f"data.limit={2 * n_steps * sizes.n_completions // N_GENERATIONS}",
        f"trl.per_device_eval_batch_size={sizes.n_completions}",
        f"hardness.every={-(-n_steps // 3)}",
    ]
    train_curriculum(
        load_recipe("nano/curriculum", CurriculumRecipe, overrides),
        out,
        resume=True,
        console=console,
    )
    return out / MODEL_DIR


def _common(one: Trained, world: Path, n_steps: int, sizes: Sizes) -> list[str]:
    return [
        f"seed={one.seed}",
        f"model.path={one.weights}",
        f"data.path={world / WIDE}",
        f"trl.per_device_train_batch_size={sizes.n_completions}",
        f"trl.num_generations={N_GENERATIONS}",
        f"trl.max_steps={n_steps}",
        f"trl.save_steps={-(-n_steps // 3)}",
        "trl.report_to=[]",
    ]
