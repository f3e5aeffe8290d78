"""What happens beside the steps of reinforcement learning: a warning, and samples to read."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pgenrm.errors import MissingExtraError, PgenrmWarning
from pgenrm.train.callbacks import SAMPLES_FILE, append_row, keep_steps
from pgenrm.train.grpo import Rollouts
from pgenrm.train.recipe import SampleSpec
from pgenrm.train.rewards import format_error

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise MissingExtraError("train", "training") from error

N_CONSTANT_STEPS: Final = 20
"""Steps without any difference of rewards inside a group after which a warning is due."""


class ConstantRewardCallback(TrainerCallback):
    """Warn where every group earns one reward, or every chain the same of one kind.

    Advantages are 0 then, or tell nothing of that kind: nothing is learned, or not all that should
    be. A format without errors is no reason to warn.
    """

    def __init__(self, n_steps: int = N_CONSTANT_STEPS) -> None:
        self._n_steps = n_steps
        self._first_step = self._last_useful_step = 0
        self._last_varied: dict[str, int] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Count from here."""
        self._first_step = self._last_useful_step = state.global_step
        self._last_varied = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count the steps since a group last had two rewards."""
        share = (logs or {}).get("frac_reward_zero_std")
        if share is None:
            return
        self._see_each(logs or {}, state.global_step)
        if share < 1:
            self._last_useful_step = state.global_step
        elif state.global_step - self._last_useful_step >= self._n_steps:
            means = ", ".join(
                f"{name.split('/')[1]} {value:.3g}"
                for name, value in (logs or {}).items()
                if name.startswith("rewards/") and name.endswith("/mean") and value is not None
            )
            warnings.warn(
                f"nothing to learn: for {state.global_step - self._last_useful_step} steps all "
                f"chains of a prompt earned the same reward (mean {means}). Look at "
                f"{SAMPLES_FILE}; raise trl.temperature or trl.num_generations, or take other "
                "comparisons",
                PgenrmWarning,
                stacklevel=2,
            )
            self._last_useful_step = state.global_step

    def _see_each(self, logs: Mapping[str, Any], step: int) -> None:
        """Count the steps since each reward last differed between two chains."""
        for key, std in logs.items():
            head, _, rest = key.partition("/")
            name, _, what = rest.partition("/")
            if (head, what) != ("rewards", "std") or name == format_error.__name__:
                continue
            since = self._last_varied.setdefault(name, self._first_step)
            if std is None or std > 0:
                self._last_varied[name] = step
            elif step - since >= self._n_steps:
                warnings.warn(
                    f"the reward {name} has been {logs.get(f'rewards/{name}/mean'):.3g} for every "
                    f"chain of {step - since} steps, and teaches nothing. Look at {SAMPLES_FILE}",
                    PgenrmWarning,
                    stacklevel=2,
                )
                self._last_varied[name] = step


class SampleWriter(TrainerCallback):
    """Write chains with their rewards to samples.jsonl, every so many steps; also an `Observer`."""

    def __init__(self, out: Path, spec: SampleSpec) -> None:
        self._path = out / SAMPLES_FILE
        self._spec = spec
        self._last_step = -1
        self._is_writing = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget what will be done again."""
        self._is_writing = state.is_world_process_zero
        if self._is_writing:
            keep_steps(self._path, state.global_step - 1)

    def __call__(self, rollouts: Rollouts) -> dict[str, float]:
        """Write the first groups of a block when it is time."""
        is_due = rollouts.step % self._spec.every == 0 and rollouts.step != self._last_step
        if not self._is_writing or rollouts.block is None or not is_due:
            return {}
        self._last_step = rollouts.step
        groups: dict[str, list[int]] = {}
        for i, row in enumerate(rollouts.rows):
            groups.setdefault(row["id"], []).append(i)
        for id_, members in list(groups.items())[: self._spec.n]:
            row = rollouts.rows[members[0]]
            append_row(
                self._path,
                {
                    "step": rollouts.step,
                    "id": id_,
                    "order": row["order"],
                    "label": row["label"],
                    "chains": [
                        {
                            "text": rollouts.texts[i],
                            "rewards": {n: column[i] for n, column in rollouts.rewards.items()},
                        }
                        for i in members
                    ],
                },
            )
        return {}
