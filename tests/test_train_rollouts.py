"""Chains to learn from, written by the network of the nano engine."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pgenrm.engines.protocol import Sampling
from pgenrm.errors import EngineError, InputError
from pgenrm.train.nano_rollouts import check_shape_of, write_completions
from pgenrm.train.rl_recipe import RlRecipe
from tests.nano_checkpoint import make_nano_checkpoint

pytestmark = pytest.mark.local

PROMPTS = [[5, 300, 17, 900], [5, 300, 17, 900], [1200, 8, 8, 41, 77, 2000, 3]]
WARM = Sampling(max_tokens=12)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    checkpoint = make_nano_checkpoint(tmp_path_factory.mktemp("nano"))
    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)


def test_without_chance_it_writes_what_transformers_writes(model: Any) -> None:
    eos = model.generation_config.eos_token_id
    ours = write_completions(
        model, PROMPTS, Sampling(temperature=0, max_tokens=16), [0, 1, 2], [eos]
    )
    theirs = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=16,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    assert ours == theirs


def test_a_completion_depends_on_its_prompt_and_seed_alone(model: Any) -> None:
    together = write_completions(model, PROMPTS, WARM, [3, 4, 5], [0])
    assert together[0] != together[1]
    alone = [
        write_completions(model, [p], WARM, [s], [0])[0]
        for p, s in zip(PROMPTS, (3, 4, 5), strict=True)
    ]
    assert together == alone


def test_a_token_that_ends_completions_ends_them(model: Any) -> None:
    (whole,) = write_completions(model, PROMPTS[:1], WARM, [7], [0])
    (cut,) = write_completions(model, PROMPTS[:1], WARM, [7], [0, whole[4]])
    assert cut == whole[: whole.index(whole[4]) + 1]


def test_another_kind_of_model_is_refused() -> None:
    grouped = LlamaConfig(num_attention_heads=4, num_key_value_heads=2)
    with pytest.raises(InputError, match=r"num_key_value_heads is 2.*set rollouts = .transformers"):
        check_shape_of(grouped, "some/model")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"trl": {"top_k": 5}}, "remove trl.top_k"),
        ({"trl": {"use_vllm": True}}, "remove trl.use_vllm"),
        ({"model": {"path": "m", "lora": {"rank": 2, "alpha": 4}}}, "remove model.lora"),
    ],
)
def test_what_the_network_does_not_know_is_refused(more: dict[str, Any], message: str) -> None:
    table = {"model": {"path": "m"}, "data": {"path": "d"}, "n_history": [0]}
    with pytest.raises(ValueError, match=message):
        RlRecipe.model_validate({**table, "alpha": 0, "beta": 1, "rollouts": "nano", **more})


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_probabilities_that_are_no_numbers_are_an_error(model: Any) -> None:
    spoiled = type(model)(model.config)
    spoiled.load_state_dict(model.state_dict())
    with torch.no_grad():
        spoiled.model.norm.weight.fill_(3e38)
    with pytest.raises(EngineError, match="no numbers any more"):
        write_completions(spoiled, PROMPTS[:1], WARM, [0], [0])
