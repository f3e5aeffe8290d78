"""The local engine, on a tiny random Llama: what it writes, what it costs, and how it fails."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from pgenrm.engines.checkpoint import default_dtype
from pgenrm.engines.control_tokens import control_tokens, token_breaker
from pgenrm.engines.decoding import draw, write
from pgenrm.engines.drafts import Draft, Sample
from pgenrm.engines.local import LocalEngine
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling, StructuredOutput
from pgenrm.errors import EngineError, InputError
from pgenrm.seeding import rng
from pgenrm.types import Failure, FailureKind, FinishReason, Message
from tests.tiny_llama import CONTEXT_WINDOW, make_tiny_llama

pytestmark = [
    pytest.mark.local,
    # peft asks transformers in an old way
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

GREEDY = Sampling(temperature=0, max_tokens=24)
WARM = Sampling(max_tokens=24)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(tiny, device="cpu")
    yield engine
    engine.close()


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / "own"))


def ask(text: str, n: int = 1, sampling: Sampling = WARM, seed: int = 0) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content=text),), n=n, sampling=sampling, seed=seed
    )


def completions(answer: Answer) -> list[Completion]:
    assert not any(isinstance(sample, Failure) for sample in answer.samples), answer
    return [sample for sample in answer.samples if isinstance(sample, Completion)]


def texts(answer: Answer) -> list[str]:
    return [completion.text for completion in completions(answer)]


def failures(answer: Answer) -> list[Failure]:
    assert all(isinstance(sample, Failure) for sample in answer.samples), answer
    return [sample for sample in answer.samples if isinstance(sample, Failure)]


def rewrite_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# ---------------------------------------------------------------- writing

SIZE: dict[str, Any] = {
    "vocab_size": 340,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.15,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "LlamaConfig": {},
    "Gemma3TextConfig": {"sliding_window": 8},
    "Qwen3NextConfig": {  # three layers of linear attention, one of full
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
    },
}


def write_all(model: Any, prompts: dict[int, list[int]], samples: list[Sample]) -> list[Draft]:
    return write(model, prompts, samples, frozenset(), lambda ids, sampling: False)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_padded_batch_is_written_as_generate_writes_each_prompt(kind: str) -> None:
    config = getattr(transformers, kind)(**SIZE, **CONFIGS[kind])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    prompts = {i: torch.randint(5, 340, (n,)).tolist() for i, n in enumerate((5, 23, 12, 1))}
    lengths = {0: 20, 1: 7, 2: 20, 3: 3}  # rows leave the batch at different times
    samples = [
        Sample(i, GREEDY.model_copy(update={"max_tokens": lengths[i]}), seed=0)
        for i in (0, 1, 1, 3, 2)
    ]
    for sample, draft in zip(samples, write_all(model, prompts, samples), strict=True):
        ids = torch.tensor([prompts[sample.prompt]])
        expected = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            min_new_tokens=lengths[sample.prompt],
            max_new_tokens=lengths[sample.prompt],
            pad_token_id=0,
        )
        assert draft.token_ids == expected[0, ids.shape[1] :].tolist()


def test_a_prompt_is_encoded_once_for_all_its_samples(engine: LocalEngine) -> None:
    shapes: list[tuple[int, int]] = []

    def record(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        shapes.append(tuple(inputs["input_ids"].shape))

    hook = engine._network.register_forward_pre_hook(record, with_kwargs=True)
    requests = [ask("one " * 30, n=8), ask("a longer one " * 30, n=3)]
    answers = engine.complete(requests)
    hook.remove()
    longest = max(answer.n_prompt_tokens or 0 for answer in answers)
    assert shapes[0] == (2, longest)
    assert all(n_rows <= 11 and n_tokens == 1 for n_rows, n_tokens in shapes[1:])
    n_tokens = [c.n_tokens or 0 for answer in answers for c in completions(answer)]
    assert sum(n_rows for n_rows, _ in shapes[1:]) == sum(n_tokens) - 11, "finished rows stay"


def test_results_do_not_depend_on_batching_or_order(tiny: Path, engine: LocalEngine) -> None:
    requests = [ask(f"{'why ' * 7 * i}?", n=1 + i % 3, seed=i) for i in range(8)]
    expected = engine.complete(requests)
    assert engine.complete(requests[::-1])[::-1] == expected
    for batch_size, max_batch_tokens in ((1, 10**6), (2, 10**6), (5, 10**6), (100, 300)):
        other = LocalEngine(
            tiny, device="cpu", batch_size=batch_size, max_batch_tokens=max_batch_tokens
        )
        assert other.complete(requests) == expected
        other.close()


def test_samples_of_a_request_differ_and_more_of_them_begin_with_the_same(
    engine: LocalEngine,
) -> None:
    four, eight = (texts(engine.complete([ask("Well?", n=n)])[0]) for n in (4, 8))
    assert len(set(eight)) == 8
    assert eight[:4] == four


def test_requests_of_a_batch_may_be_sampled_differently(engine: LocalEngine) -> None:
    kinds = [
        GREEDY,
        WARM,
        Sampling(max_tokens=5),
        Sampling(max_tokens=24, top_p=0.3),
        Sampling(max_tokens=24, temperature=0.5),
        Sampling(max_tokens=24, logprobs=True),
    ]
    requests = [ask("Well?", n=2, sampling=sampling) for sampling in kinds]
    together = engine.complete(requests)
    for request, answer in zip(requests, together, strict=True):
        (alone,) = engine.complete([request])
        assert texts(alone) == texts(answer)
    assert len({text for answer in together for text in texts(answer)}) >= 8


# ---------------------------------------------------------------- drawing


def draw_many(logits: list[float], n: int, **kwargs: float) -> list[int]:
    tokens, _ = draw(
        torch.tensor([logits]).repeat(n, 1),
        temperature=[kwargs.get("temperature", 1.0)] * n,
        top_p=[kwargs.get("top_p", 1.0)] * n,
        uniform=rng(0).random(n).tolist(),
    )
    return tokens


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_draws_follow_the_softmax_of_a_model(tiny: Path, temperature: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    prompt = torch.tensor([[0, 3, 40, 50, 60]])
    with torch.no_grad():
        logits = model(prompt).logits[0, -1]
    n = 20_000
    sampling = Sampling(temperature=temperature, max_tokens=1)
    samples = [Sample(0, sampling, seed) for seed in range(n)]
    counts = Counter(d.token_ids[0] for d in write_all(model, {0: prompt[0].tolist()}, samples))
    expected = (logits.double() / temperature).softmax(-1).numpy() * n
    common = np.flatnonzero(expected >= 20)
    observed = [counts[int(token)] for token in common]
    rest = n - expected[common].sum(), n - sum(observed)
    assert len(common) > 10
    assert chisquare([*observed, rest[1]], [*expected[common], rest[0]]).pvalue > 0.001


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = [math.log(p) for p in (0.15, 0.5, 0.05, 0.3)]
    for top_p, kept in ((0.49, {1}), (0.6, {1, 3}), (0.79, {1, 3}), (0.9, {0, 1, 3})):
        assert set(draw_many(logits, 300, top_p=top_p)) == kept
    assert set(draw_many(logits, 300, top_p=0.0)) == {1}
    share = draw_many(logits, 8000, top_p=0.6).count(1) / 8000
    assert abs(share - 0.5 / 0.8) < 0.02, "what is left is not renormalised"


@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=30),
    temperature=st.sampled_from([0.0, 1e-30, 0.01, 1.0, 5.0]),
    top_p=st.sampled_from([0.0, 0.5, 0.999, 1.0]),
    uniform=st.sampled_from([0.0, 0.5, 1 - 2**-53]),
)
def test_what_is_drawn_can_be_drawn(
    logits: list[float], temperature: float, top_p: float, uniform: float
) -> None:
    row = torch.tensor([-math.inf, *logits, -math.inf])
    (token,), (logprob,) = draw(row[None], [temperature], [top_p], [uniform])
    assert row[token] > -math.inf, "a token of probability zero was drawn"
    assert logprob == pytest.approx(row.log_softmax(-1)[token].item(), abs=1e-4)
    if temperature == 0:
        assert row[token] == max(logits)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_unusable_logits_are_found_in_their_row_alone(bad: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, bad], [1.0, 0.0]])
    _, logprobs = draw(logits, [1.0, 1.0, 0.0], [1.0, 0.5, 1.0], [0.1, 0.1, 0.1])
    assert [math.isnan(value) for value in logprobs] == [False, True, False]


# ---------------------------------------------------------------- how a completion ends


def test_length_and_tokens_are_reported(engine: LocalEngine) -> None:
    (completion,) = completions(engine.complete([ask("Go on", sampling=GREEDY)])[0])
    assert (completion.finish_reason, completion.n_tokens) == (FinishReason.LENGTH, 24)


def test_logprobs_are_the_models_own(engine: LocalEngine, tiny: Path) -> None:
    sampling = Sampling(max_tokens=6, temperature=0.5, top_p=0.9, logprobs=True)
    request = ask("Go on", n=3, sampling=sampling)
    (answer,) = engine.complete([request])
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    model = AutoModelForCausalLM.from_pretrained(tiny)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Go on"}], add_generation_prompt=True, return_dict=False
    )
    assert answer.n_prompt_tokens == len(prompt) == engine.count_tokens(request.messages)
    draft, *_ = write_all(model, {0: prompt}, [Sample(0, sampling, seed=5)])
    with torch.no_grad():
        logits = model(torch.tensor([prompt + draft.token_ids])).logits[0, len(prompt) - 1 : -1]
    expected = logits.log_softmax(-1)[range(6), draft.token_ids].tolist()
    assert draft.logprobs == pytest.approx(expected, abs=1e-4)
    for completion in completions(answer):
        assert completion.logprobs is not None
        assert len(completion.logprobs) == completion.n_tokens == 6
        assert all(value < 0 for _, value in completion.logprobs)


def test_a_stop_sequence_ends_a_completion_before_it(engine: LocalEngine) -> None:
    (whole,) = texts(engine.complete([ask("Go on", sampling=GREEDY)])[0])
    for stop in (whole[6:9], whole[10:11]):
        sampling = GREEDY.model_copy(update={"stop": ("never written", stop)})
        (completion,) = completions(engine.complete([ask("Go on", sampling=sampling)])[0])
        assert completion.text == whole[: whole.index(stop)]
        assert completion.finish_reason is FinishReason.STOP
        assert (completion.n_tokens or 0) < 24


def test_the_end_tokens_of_the_generation_config_count_and_nothing_else_of_it(
    engine: LocalEngine, own: Path
) -> None:
    request = ask("Go on", sampling=GREEDY.model_copy(update={"logprobs": True}))
    (whole,) = completions(engine.complete([request])[0])
    words = [word for word, _ in whole.logprobs or ()]
    word = next(word for word in words[2:] if word.isascii() and words.index(word) >= 2)
    (end,) = AutoTokenizer.from_pretrained(own).encode(word, add_special_tokens=False)
    rewrite_json(
        own / "generation_config.json",
        eos_token_id=[1, end],
        top_k=1,
        temperature=0.01,
        repetition_penalty=9.0,
        no_repeat_ngram_size=1,
        max_new_tokens=2,
        suppress_tokens=list(range(100)),
    )
    other = LocalEngine(own, device="cpu")
    (ended,) = completions(other.complete([request])[0])
    assert ended.finish_reason is FinishReason.STOP
    assert ended.n_tokens == words.index(word) + 1, "the end token is not counted"
    assert ended.logprobs == (whole.logprobs or ())[: ended.n_tokens]
    assert whole.text.startswith(ended.text + word)

    warm = ask("Why?", n=4)
    for a, b in zip(
        completions(engine.complete([warm])[0]), completions(other.complete([warm])[0]), strict=True
    ):
        assert a.text.startswith(b.text)
        assert b.finish_reason is FinishReason.STOP or a == b
    other.close()


# ---------------------------------------------------------------- failures


def test_a_prompt_beyond_the_window_fails_alone(engine: LocalEngine) -> None:
    good = [ask("before", n=2), ask("after")]
    long = ask("word " * CONTEXT_WINDOW, n=2)
    before, lost, after = engine.complete([good[0], long, good[1]])
    assert [before, after] == engine.complete(good)
    assert [f.kind for f in failures(lost)] == [FailureKind.TOO_LONG] * 2
    assert str(CONTEXT_WINDOW) in failures(lost)[0].reason
    n_prompt = engine.count_tokens(good[1].messages)
    for max_tokens, fits in ((CONTEXT_WINDOW - n_prompt, True), (CONTEXT_WINDOW, False)):
        sampling = GREEDY.model_copy(update={"max_tokens": max_tokens, "stop": ("e", "a", "o")})
        (answer,) = engine.complete([ask("after", sampling=sampling)])
        assert isinstance(answer.samples[0], Completion) is fits


@pytest.mark.parametrize("n_rows_that_fit", [3, 0])
def test_a_batch_without_memory_is_halved_until_it_fits(
    engine: LocalEngine, tiny: Path, n_rows_that_fit: int
) -> None:
    requests = [ask(f"question {i}", n=4, seed=i) for i in range(3)]
    tight, n_refused = LocalEngine(tiny, device="cpu"), 0

    def limit(module: torch.nn.Module, args: Any, inputs: dict[str, Any]) -> None:
        nonlocal n_refused
        if inputs["input_ids"].shape[0] > n_rows_that_fit:
            n_refused += 1
            raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    tight._network.register_forward_pre_hook(limit, with_kwargs=True)
    answers = tight.complete(requests)
    if n_rows_that_fit:
        assert answers == engine.complete(requests)
        n_refused_at_first = n_refused
        assert tight.complete(requests) == answers
        assert n_refused == n_refused_at_first > 0, "the limit was forgotten"
    else:
        assert all("2 GiB" in f.reason for answer in answers for f in failures(answer))
        assert [len(answer.samples) for answer in answers] == [4, 4, 4]


def test_logits_that_are_no_numbers_are_a_failure(own: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(own)
    (poison,) = tokenizer.encode("#", add_special_tokens=False)
    model = AutoModelForCausalLM.from_pretrained(own)
    with torch.no_grad():
        model.model.embed_tokens.weight[poison] = math.nan
        model.lm_head.weight[poison] = 0  # never written
    model.save_pretrained(own)
    engine = LocalEngine(own, device="cpu")
    sound, poisoned = engine.complete([ask("sound", 3), ask("#", 3)])
    completions(sound)
    assert all("float32" in f.reason and f.n_tokens == 0 for f in failures(poisoned))
    engine.close()


def test_an_empty_completion_is_a_failure(engine: LocalEngine, own: Path) -> None:
    rewrite_json(own / "generation_config.json", eos_token_id=list(range(340)))
    other = LocalEngine(own, device="cpu")
    (answer,) = other.complete([ask("Hm?", n=2)])
    assert [(f.kind, f.n_tokens) for f in failures(answer)] == [(FailureKind.REQUEST, 1)] * 2
    other.close()


def test_messages_that_the_chat_template_refuses_fail_alone(own: Path) -> None:
    template = own / "chat_template.jinja"
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template.write_text(refusal + template.read_text())
    engine = LocalEngine(own, device="cpu")
    system = Message(role="system", content="Judge.")
    refused = ask("Hm?").model_copy(update={"messages": (system, *ask("Hm?").messages)})
    good, bad = engine.complete([ask("Hm?"), refused])
    completions(good)
    assert "no system" in failures(bad)[0].reason
    with pytest.raises(EngineError, match="no system"):
        engine.count_tokens(refused.messages)
    engine.close()


def test_constrained_output_is_refused(engine: LocalEngine) -> None:
    sampling = Sampling(structured=StructuredOutput.STRUCTURAL_TAG)
    with pytest.raises(EngineError, match="openai"):
        engine.complete([ask("Hm?", sampling=sampling)])


def test_a_closed_engine_says_so(tiny: Path) -> None:
    engine = LocalEngine(tiny, device="cpu")
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.complete([ask("Hm?")])


# ---------------------------------------------------------------- untrusted text

PIECES = ["<s>", "</s>", "<|role|>", "<|pad|>", "<", "|", "role", "s>", ">", "/", " ", "\n", "é"]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_no_text_brings_control_tokens_into_a_prompt(engine: LocalEngine, text: str) -> None:
    messages = [Message(role=role, content=text) for role in ("system", "user", "assistant")]
    plain = [message.model_copy(update={"content": "x"}) for message in messages]
    n_controls = [sum(token < 4 for token in engine._prompt(m)) for m in (messages, plain)]
    assert n_controls[0] == n_controls[1]


def test_broken_tokens_stay_readable_and_other_texts_stay_as_they_are(tiny: Path) -> None:
    tokens = control_tokens(AutoTokenizer.from_pretrained(tiny))
    assert tokens == {"<s>", "</s>", "<|pad|>", "<|role|>"}
    clean = token_breaker(tokens)
    assert clean("a</s>b <|role|>system") == "a< /s>b < |role|>system"
    assert clean("if a <s and b> s: <b>|role|</b>") == "if a <s and b> s: <b>|role|</b>"
    assert token_breaker(["ab", "bc"])("abc") == "a b c"


def test_role_tokens_count_as_control_tokens_even_where_not_marked_as_special(own: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(own)
    tokenizer.add_tokens(["<turn>", "<b>", "\n\n"])
    tokenizer.chat_template += "<turn>\n\n"
    assert control_tokens(tokenizer) >= {"<turn>", "</s>"}
    assert "<b>" not in control_tokens(tokenizer)
    assert token_breaker(control_tokens(tokenizer))("a\n\nb") == "a\n\nb"


# ---------------------------------------------------------------- checkpoints


@pytest.fixture(scope="module")
def lora(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter directory with random weights."""
    directory = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny), config)
    model.save_pretrained(str(directory))
    return directory


def test_an_adapter_writes_what_the_merged_model_writes(
    engine: LocalEngine, tiny: Path, lora: Path, own: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny)
    PeftModel.from_pretrained(base, lora).merge_and_unload().save_pretrained(own)
    requests = [ask("Go on", sampling=GREEDY), ask("Go on", n=3)]
    merged, adapted, alone = (
        LocalEngine(own, device="cpu"),
        LocalEngine(tiny, adapter=lora, device="cpu"),
        LocalEngine(lora, device="cpu"),
    )
    expected = merged.complete(requests)
    assert adapted.complete(requests) == alone.complete(requests) == expected
    assert engine.complete(requests) != expected
    assert adapted.cache_identity not in (engine.cache_identity, merged.cache_identity)
    for other in (merged, adapted, alone):
        other.close()


def test_a_prompt_template_of_the_checkpoint_is_found(
    engine: LocalEngine, own: Path, lora: Path, tmp_path: Path
) -> None:
    assert engine.template_file is None
    (own / "pgenrm_prompt.jinja").write_text("of the model")
    adapter = shutil.copytree(lora, tmp_path / "adapter")
    assert LocalEngine(own, device="cpu").template_file == own / "pgenrm_prompt.jinja"
    assert LocalEngine(own, adapter, device="cpu").template_file == own / "pgenrm_prompt.jinja"
    (adapter / "pgenrm_prompt.jinja").write_text("of the adapter")
    assert LocalEngine(own, adapter, device="cpu").template_file == adapter / "pgenrm_prompt.jinja"


def test_a_model_of_the_hub_cache_is_loaded(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--someone--tiny"
    snapshot = Path(shutil.copytree(tiny, repository / "snapshots" / ("0" * 40)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    engine = LocalEngine("someone/tiny", device="cpu")
    assert (engine.model, engine.template_file) == ("someone/tiny", None)
    completions(engine.complete([ask("Hm?")])[0])
    (snapshot / "pgenrm_prompt.jinja").write_text("a template")
    template_file = LocalEngine("someone/tiny", device="cpu").template_file
    assert template_file is not None
    assert template_file.read_text() == "a template"


def test_the_cache_identity_changes_with_weights_and_dtype(own: Path) -> None:
    first = LocalEngine(own, device="cpu").cache_identity
    assert LocalEngine(own, device="cpu").cache_identity == first
    assert LocalEngine(own, device="cpu", dtype="bfloat16").cache_identity != first
    make_tiny_llama(own, seed=1)
    assert LocalEngine(own, device="cpu").cache_identity != first


def test_cpus_compute_in_float32_unless_the_weights_are_bfloat16(own: Path) -> None:
    assert default_dtype("cpu", torch.float32) == default_dtype("cpu", torch.float16) == "float32"
    assert default_dtype("mps", torch.float32) == "bfloat16"
    expected = default_dtype("cpu", torch.bfloat16)
    AutoModelForCausalLM.from_pretrained(own, dtype="bfloat16").save_pretrained(own)
    engine = LocalEngine(own, device="cpu")
    assert str(engine._network.dtype) == f"torch.{expected}"
    completions(engine.complete([ask("Hm?", n=2)])[0])


def spoil_template(checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").unlink()


def spoil_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_bytes(b"half a download")


def spoil_head(checkpoint: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    weights = {k: v for k, v in model.state_dict().items() if k != "lm_head.weight"}
    model.save_pretrained(checkpoint, state_dict=weights)


def spoil_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()


def spoil_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "tokenizer_config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_template, "no chat template.*chat_template.jinja"),
        (spoil_weights, "cannot load"),
        (spoil_head, "lacks 1 weights, lm_head.weight"),
        (spoil_config, "cannot load"),
        (spoil_tokenizer, "cannot load"),
    ],
)
def test_a_damaged_checkpoint_is_refused(own: Path, spoil: Any, message: str) -> None:
    spoil(own)
    with pytest.raises(EngineError, match=message) as caught:
        LocalEngine(own, device="cpu")
    assert str(own) in str(caught.value)


def test_models_that_are_not_there_are_named_with_the_next_step(
    tiny: Path, lora: Path, tmp_path: Path
) -> None:
    for model, message in (
        (str(tmp_path / "none"), "is no directory"),
        ("./none", "is no directory"),
        ("someone/none", "hf download"),
    ):
        with pytest.raises(EngineError, match=message) as caught:
            LocalEngine(model, device="cpu")
        assert model in str(caught.value)
    with pytest.raises(EngineError, match="adapter"):
        LocalEngine(tiny, adapter=tmp_path, device="cpu")
    orphan = Path(shutil.copytree(lora, tmp_path / "orphan"))
    rewrite_json(orphan / "adapter_config.json", base_model_name_or_path=None)
    with pytest.raises(EngineError, match="names no base model"):
        LocalEngine(orphan, device="cpu")


def test_devices_and_dtypes_that_do_not_exist_are_refused(tiny: Path) -> None:
    with pytest.raises(InputError, match="bfloat16"):
        LocalEngine(tiny, device="cpu", dtype="int3")
    with pytest.raises(EngineError, match="abacus"):
        LocalEngine(tiny, device="abacus")


@pytest.mark.parametrize("package", ["torch", "transformers", "peft"])
def test_a_missing_extra_names_its_install_command(package: str) -> None:
    code = f"import sys; sys.modules['{package}'] = None; import pgenrm.engines.local"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError: the local engine needs an extra: pip install 'pgenrm[local]'" in (
        done.stderr
    )
