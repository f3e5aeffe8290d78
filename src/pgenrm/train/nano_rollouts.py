"""Chains to learn from by reward, written by the small network of the `nano` engine.

On a processor transformers spends most of a step on overhead, and reads a prompt again for each of
its completions. The network is filled with the trainer's weights whenever a block is written. Each
completion has a seed of its own, so that a resumed run writes what the unbroken one wrote.
"""

import os
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from pgenrm.engines.drafts import Sample
from pgenrm.engines.nano import MAX_THREADS
from pgenrm.engines.nano_decoding import write
from pgenrm.engines.nano_network import Network, check_shape
from pgenrm.engines.protocol import Sampling
from pgenrm.errors import EngineError, InputError, MissingExtraError
from pgenrm.types import FinishReason

try:
    from threadpoolctl import threadpool_limits
except ImportError as error:
    raise MissingExtraError("nano", "rollouts = 'nano'") from error


def check_shape_of(config: Any, name: str) -> None:
    """See that the network can stand for a model.

    Args:
        config: transformers' config of the model.
        name: of the model, for the message.

    Raises:
        InputError: it cannot.
    """
    try:
        check_shape(config.to_dict(), name)
    except EngineError as error:
        raise InputError(
            f'rollouts = "nano" is for Llamas of the bundled kind alone ({error}); set rollouts = '
            '"transformers"'
        ) from error


def write_completions(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    eos_ids: Sequence[int],
) -> list[list[int]]:
    """Let a model complete prompts; equal prompts that stand together are read once.

    Args:
        model: transformers' model, with all its weights.
        prompts: [n] of token ids.
        sampling: for all of them.
        seeds: [n]; a completion depends on weights, prompt and its own seed alone.
        eos_ids: tokens that end a completion.

    Returns:
        [n] of token ids, with the one that ended it.

    Raises:
        EngineError: the network cannot stand for the model, or its probabilities are no numbers.
    """
    weights = {k: v.detach().float().cpu().numpy() for k, v in model.state_dict().items()}
    config = {**model.config.to_dict(), "eos_token_id": list(eos_ids)}
    network = Network(config, weights, "the model in training")
    groups = [list(group) for _, group in groupby(range(len(prompts)), lambda i: prompts[i])]
    samples = [[Sample(g, sampling, seeds[i]) for i in group] for g, group in enumerate(groups)]
    n_threads = min(os.cpu_count() or 1, MAX_THREADS)
    with threadpool_limits(limits=1, user_api="blas"):
        drafts = write(
            network,
            {g: prompts[group[0]] for g, group in enumerate(groups)},
            samples,
            meets_stop=lambda token_ids, sampling: False,
            n_threads=n_threads,
        )
    written = [draft for group in drafts for draft in group]
    if any(draft.finish_reason is FinishReason.OTHER for draft in written):
        raise EngineError("the model's probabilities are no numbers any more")
    return [draft.token_ids for draft in written]
