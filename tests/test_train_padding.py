"""Log-probabilities in parts of similar length: the same numbers, without the padding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trl import GRPOTrainer

from pgenrm.train.blocks import uniform_draw
from pgenrm.train.grpo import grpo_config, n_prompts
from pgenrm.train.padding import N_ROWS, parts_by_length
from pgenrm.train.rewards import format_error, outcome
from pgenrm.train.rl import load_prompts, start_trainer
from pgenrm.train.rl_recipe import RlRecipe
from tests.tiny_rl import make_model, recipe, write_comparisons

pytestmark = pytest.mark.local

Lengths = list[tuple[int, int]]
"""Tokens of prompt and completion."""


def mask_of(lengths: Lengths) -> tuple[torch.Tensor, int]:
    longest = [max(column) for column in zip(*lengths, strict=True)]
    mask = torch.zeros(len(lengths), sum(longest), dtype=torch.long)
    for row, (n_prompt, n_completion) in zip(mask, lengths, strict=True):
        row[longest[0] - n_prompt : longest[0] + n_completion] = 1
    return mask, longest[1]


@given(st.lists(st.tuples(st.integers(1, 200), st.integers(1, 200)), min_size=1, max_size=40))
def test_every_row_stands_in_one_part_and_nothing_of_it_is_cut(lengths: Lengths) -> None:
    mask, n_completion = mask_of(lengths)
    parts = list(parts_by_length(mask, n_completion))
    assert sorted(int(i) for part in parts for i in part.rows) == list(range(len(lengths)))
    for part in parts:
        assert len(part.rows) <= N_ROWS
        kept = mask[part.rows, part.first : part.end]
        assert kept.sum() == mask[part.rows].sum()
        assert part.first < mask.shape[1] - n_completion < part.end <= mask.shape[1]


def test_the_numbers_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    data = write_comparisons(tmp_path / "comparisons.jsonl")
    table: dict[str, Any] = recipe(model, data, alpha=0, beta=1)
    chosen = RlRecipe.model_validate(table)
    config = grpo_config(chosen, tmp_path / "run", reward_weights=[1.0, 1.0])
    prompts = load_prompts(chosen, config)
    trainer = start_trainer(
        chosen,
        tmp_path / "run",
        config,
        prompts,
        rewards=[outcome, format_error],
        draw=uniform_draw(len(prompts.dataset), n_prompts(config), 0),
        command=(),
        resume=False,
        console=None,
    )
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 150, (40, 2), generator=drawn).tolist()
    mask, n_completion = mask_of([(a, b) for a, b in lengths])
    ids = torch.randint(0, 10, mask.shape, generator=drawn)
    given: Any = (trainer.model, ids, mask, n_completion, None, True)
    trls: Any = GRPOTrainer
    with torch.no_grad():
        ours = trainer._get_per_token_logps_and_entropies(*given)
        theirs = trls._get_per_token_logps_and_entropies(trainer, *given)
    is_written = mask[:, -n_completion:].bool()
    for mine, plain in zip(ours[:2], theirs[:2], strict=True):
        assert mine.shape == plain.shape
        assert torch.allclose(mine[is_written], plain[is_written], atol=1e-5)
