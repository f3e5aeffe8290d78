"""What both stages of reinforcement learning share: TRL's GRPOTrainer, made safe for chains.

Five things are added to it. A group in which a reward could not be had for some completion goes
without that reward altogether: TRL counts a missing one as 0 in the sum, and the others of the
group would seem better than they are. The order of prompts is a function of the seed, so that a run
can be resumed. Whoever wants to know what was sampled is told: samples for a person, the mix of a
curriculum, estimates of hardness. A small model's chains can be written by `nano_rollouts`. And
next to nothing is computed for padding.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgenrm.engines.protocol import Sampling
from pgenrm.errors import EngineError, InputError, MissingExtraError, PgenrmError, TrainingError
from pgenrm.seeding import derive_seed
from pgenrm.train.blocks import BlockSampler, Draw, n_blocks
from pgenrm.train.padding import parts_by_length
from pgenrm.train.record import last_checkpoint
from pgenrm.train.rl_recipe import GrpoRecipe
from pgenrm.train.trl_config import trl_config

try:
    import torch
    from torch.nn.functional import pad
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise MissingExtraError("train", "training") from error


@dataclass(frozen=True)
class Rollouts:
    """Completions that one process sampled for a block, with what they earned."""

    step: int
    """Optimiser steps done before."""
    block: int | None
    """Number of the block; None for completions that are not trained on."""
    rows: Sequence[Mapping[str, Any]]
    """[n] of the data set, one per completion."""
    texts: Sequence[str]
    rewards: Mapping[str, Sequence[float | None]]
    """Name of a reward function -> [n], before weighting; None where there is none."""


Write = Callable[[Any, Sequence[Sequence[int]], Sampling, Sequence[int], Sequence[int]], Any]
"""Takes a model, prompts, how to sample, a seed per prompt and the tokens that end a completion;
returns a list of token ids per prompt. See `pgenrm.train.nano_rollouts.write_completions`."""
Observer = Callable[[Rollouts], Mapping[str, float]]
"""Is shown what was sampled, and returns numbers to log."""


class ChainTrainer(GRPOTrainer):
    """TRL's trainer with whole groups, repeatable blocks and observers."""

    def __init__(self, *args: Any, draw: Draw, write: Write | None = None, **kwargs: Any) -> None:
        """Set up the trainer.

        Args:
            args: TRL's.
            draw: which prompts each block holds.
            write: writes completions in place of TRL.
            kwargs: TRL's.
        """
        self.args: Any  # to the base class these may be any trainer's
        self.model: Any
        self.num_generations: Any
        self.num_generations_eval: Any
        self.draw = draw
        self.write = write
        self.observers: list[Observer] = []
        self._block: int | None = None
        super().__init__(*args, **kwargs)

    @property
    def n_repeats(self) -> int:
        """How often a block is read."""
        return int(self.args.steps_per_generation * self.args.num_iterations)

    def _get_train_sampler(self, dataset: Any = None) -> BlockSampler:
        return BlockSampler(
            self.draw,
            n_blocks(self.args),
            n_prompts=n_prompts(self.args),
            n_generations=self.num_generations,
            n_repeats=self.n_repeats,
        )

    def _generate_single_turn(
        self, prompt_ids: Any, images: Any, fields: Any, num_generations: int, *rest: Any
    ) -> Any:
        """Write one completion per prompt, in this process; called by TRL."""
        if self.write is None:
            trl: Any = super()  # which has no types
            return trl._generate_single_turn(prompt_ids, images, fields, num_generations, *rest)
        number = self._next_block() if self.model.training else f"probe {self.state.global_step}"
        first = self.accelerator.process_index * len(prompt_ids)
        seeds = [
            derive_seed(self.args.seed, "rollout", number, first + i, *ids)
            for i, ids in enumerate(prompt_ids)
        ]
        sampling = Sampling(
            temperature=self.args.temperature,
            top_p=self.args.top_p,
            max_tokens=self.args.max_completion_length,
        )
        try:
            return self.write(self.model, prompt_ids, sampling, seeds, self.eos_token_ids), None
        except EngineError as error:
            raise TrainingError(
                f"no chains could be written for step {self.state.global_step + 1} ({error}); "
                f"where weights burst, start anew with a lower trl.learning_rate ({self._kept()})"
            ) from error

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **more: Any,
    ) -> Any:
        """Compute what TRL asks for; where rows are texts alone, in parts of similar length.

        Returns:
            Log-probabilities [n_rows, logits_to_keep], entropies of the same shape or None, and
            no loss of experts. Both are 0 where a whole part has padding.
        """
        trl: Any = super()  # which has no types
        if any(value is not None and value is not False for value in more.values()):
            return trl._get_per_token_logps_and_entropies(
                model,
                input_ids,
                attention_mask,
                logits_to_keep,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
                **more,
            )
        parts = list(parts_by_length(attention_mask, logits_to_keep))
        n_columns = input_ids.shape[1]
        found = []
        for part in parts:
            n_cut = n_columns - part.end
            logps, entropies, _ = trl._get_per_token_logps_and_entropies(
                model,
                input_ids[part.rows, part.first : part.end],
                attention_mask[part.rows, part.first : part.end],
                logits_to_keep - n_cut,
                batch_size=batch_size,
                compute_entropy=compute_entropy,
            )
            found.append([x if x is None else pad(x, (0, n_cut)) for x in (logps, entropies)])
        place = torch.cat([part.rows for part in parts]).argsort()
        logps, entropies = (
            None if columns[0] is None else torch.cat(columns)[place]
            for columns in zip(*found, strict=True)
        )
        return logps, entropies, None

    def _next_block(self) -> int:
        """Return the number of the block that is to be sampled, or is being."""
        if self._block is None:  # checkpoints are saved between blocks only
            micro_steps = self.state.global_step * self.args.gradient_accumulation_steps
            self._block = micro_steps // self.n_repeats
        return self._block

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        step = self.state.global_step
        try:
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        except PgenrmError:
            raise
        except Exception as error:  # a reward function may be anybody's
            raise TrainingError(
                f"a reward function failed at step {step + 1}: {type(error).__name__}: {error}; "
                f"mend it, then run again ({self._kept()})"
            ) from error
        for i, name in enumerate(self.reward_func_names):
            if rewards[:, i].isinf().any():  # TRL would give the whole group advantages of 0
                raise TrainingError(
                    f"the reward {name} is infinite at step {step + 1}; mend it, then run again "
                    f"({self._kept()})"
                )
        is_training = self.model.training
        n_generations = self.num_generations if is_training else self.num_generations_eval
        n_failed = rewards.isnan().sum(dim=0).tolist()
        rewards, n_dropped = whole_groups(rewards, n_generations)
        metrics = self._metrics["train" if is_training else "eval"]
        for i, name in enumerate(self.reward_func_names):
            metrics[f"rewards/{name}/n_failed"].append(n_failed[i])
            metrics[f"rewards/{name}/n_groups_dropped"].append(int(n_dropped[i]))
        self._observe(inputs, completions, rewards)
        return rewards

    def _kept(self) -> str:
        good = last_checkpoint(Path(self.args.output_dir))
        return f"{good} is good; resume from it" if good else "there is no checkpoint yet"

    def _observe(self, inputs: Any, completions: Any, rewards: torch.Tensor) -> None:
        block = None
        if self.model.training:
            block = self._next_block()
            self._block = block + 1
        first = self.accelerator.process_index * len(inputs)
        own = rewards[first : first + len(inputs)].T.tolist()
        rollouts = Rollouts(
            step=self.state.global_step,
            block=block,
            rows=inputs,
            texts=[completion[0]["content"] for completion in completions],
            rewards={
                name: [None if r != r else r for r in column]  # NaN is TRL's None
                for name, column in zip(self.reward_func_names, own, strict=True)
            },
        )
        for observe in self.observers:
            for name, value in observe(rollouts).items():
                self._log_metric(name, value)


def whole_groups(rewards: torch.Tensor, n_generations: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a reward away from every group in which some completion lacks it.

    Args:
        rewards: [n_groups * n_generations, n_functions]; NaN where there is none.
        n_generations: completions of a group, one after the other.

    Returns:
        The rewards, and [n_functions] how many groups each was taken from.
    """
    groups = rewards.view(-1, n_generations, rewards.shape[1])
    is_lost = groups.isnan().any(dim=1, keepdim=True)
    return groups.masked_fill(is_lost, torch.nan).view_as(rewards), is_lost.sum(dim=(0, 1))


def grpo_config(recipe: GrpoRecipe, out: Path, **ours: Any) -> GRPOConfig:
    """Build TRL's config, and see that a run by it can be done and resumed.

    Args:
        recipe: of the stage.
        out: the run's directory.
        ours: settings that the stage itself makes.

    Raises:
        InputError: groups do not fill the batch, the length is not given in steps, a checkpoint
            would fall between two uses of the same completions, or as `trl_config`.
    """
    for key in ours:
        if key in recipe.trl:
            raise InputError(f"trl.{key}: not here; the stage sets it from the rest of the recipe")
    check_groups(recipe.trl, int(os.environ.get("WORLD_SIZE", "1")))
    if "max_steps" not in recipe.trl:
        raise InputError("trl.max_steps is missing: the length of the run in optimiser steps")
    args = trl_config(GRPOConfig, recipe.model_copy(update={"trl": {**recipe.trl, **ours}}), out)
    assert args.steps_per_generation is not None  # TRL fills in what a recipe leaves out
    n_repeats = args.steps_per_generation * args.num_iterations
    if args.save_strategy == "steps" and args.save_steps < 1:
        raise InputError(f"trl.save_steps is {args.save_steps}; give it in steps")
    n_steps = int(args.save_steps)
    if args.save_strategy == "steps" and n_steps * args.gradient_accumulation_steps % n_repeats:
        raise InputError(
            f"trl.save_steps is {n_steps}, but completions are used for "
            f"{n_repeats / args.gradient_accumulation_steps:g} steps; a checkpoint in between "
            "cannot be resumed as it was, so make it a multiple"
        )
    if recipe.model.path is None and args.beta and recipe.model.lora is None:
        raise InputError(
            "trl.beta needs a reference model, which is read from model.path; a new model has none "
            "(--set trl.beta=0)"
        )
    if recipe.model.revision is not None and args.beta and recipe.model.lora is None:
        raise InputError(
            "TRL reads the reference model of trl.beta by its name alone, so not at "
            f"model.revision {recipe.model.revision}; give the directory of that revision as "
            "model.path"
        )
    return args


def n_prompts(args: GRPOConfig) -> int:
    """Return how many prompts a block holds, over all processes."""
    assert args.generation_batch_size is not None
    assert args.num_generations is not None
    return args.generation_batch_size // args.num_generations


def check_groups(trl: Mapping[str, Any], n_processes: int) -> None:
    """See that whole groups of completions fill a batch, before anything is loaded.

    Raises:
        InputError: they do not.
    """
    counts = {
        key: trl[key]
        for key in (
            *("num_generations", "per_device_train_batch_size", "steps_per_generation"),
            *("gradient_accumulation_steps", "generation_batch_size", "max_steps"),
        )
        if trl.get(key) is not None
    }
    for key, value in counts.items():
        if type(value) is not int or value < 1:
            raise InputError(f"trl.{key} is {value!r}; give a whole number from 1 on")
    n_generations = counts.get("num_generations", 8)
    n_per_device = counts.get("per_device_train_batch_size", 8)
    n_steps = counts.get("steps_per_generation") or counts.get("gradient_accumulation_steps") or 1
    n_completions = counts.get("generation_batch_size") or n_per_device * n_processes * n_steps
    if n_completions % n_generations:
        raise InputError(
            f"trl.num_generations is {n_generations}, which does not divide the {n_completions} "
            f"completions of a batch ({n_per_device} per device x {n_processes} processes x "
            f"{n_steps} steps); a group must be whole: change one of "
            "trl.per_device_train_batch_size, trl.steps_per_generation and trl.num_generations"
        )
