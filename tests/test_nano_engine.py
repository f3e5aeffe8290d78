"""The nano engine, on random weights: what it writes, what it depends on, and how it fails."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from pgenrm.engines.nano import NAMES, WEIGHTS, NanoEngine
from pgenrm.engines.nano_decoding import MAX_SAMPLES, draw
from pgenrm.engines.nano_network import Array, Network, Writing
from pgenrm.engines.protocol import Answer, ChatRequest, Completion, Sampling, StructuredOutput
from pgenrm.errors import EngineError
from pgenrm.seeding import rng
from pgenrm.types import Failure, FailureKind, FinishReason, Message
from tests.nano_checkpoint import make_nano_checkpoint

pytestmark = pytest.mark.local  # the checkpoint is made with transformers

GREEDY = Sampling(temperature=0, max_tokens=24)
WARM = Sampling(max_tokens=24, logprobs=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nano_checkpoint(tmp_path_factory.mktemp("nano"))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[NanoEngine]:
    engine = NanoEngine(checkpoint, n_threads=1, warn=lambda text: None)
    yield engine
    engine.close()


@pytest.fixture
def own(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may spoil."""
    return Path(shutil.copytree(checkpoint, tmp_path / "own"))


def ask(text: str, n: int = 1, sampling: Sampling = WARM, seed: int = 0) -> ChatRequest:
    return ChatRequest(
        messages=(Message(role="user", content=text),), n=n, sampling=sampling, seed=seed
    )


def completions(answer: Answer) -> list[Completion]:
    assert not any(isinstance(sample, Failure) for sample in answer.samples), answer
    return [sample for sample in answer.samples if isinstance(sample, Completion)]


def texts(answer: Answer) -> list[str]:
    return [completion.text for completion in completions(answer)]


def rewrite_config(directory: Path, **fields: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# ---------------------------------------------------------------- writing


def test_it_writes_what_transformers_writes(engine: NanoEngine, checkpoint: Path) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    requests = [ask("Why? " * k, sampling=GREEDY) for k in (1, 40, 7)]
    for request, answer in zip(requests, engine.complete(requests), strict=True):
        prompt: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": request.messages[0].content}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        assert answer.n_prompt_tokens == prompt["input_ids"].shape[1]
        assert answer.n_prompt_tokens == engine.count_tokens(request.messages)
        expected = model.generate(**prompt, do_sample=False, max_new_tokens=24, pad_token_id=0)
        written = expected[0, prompt["input_ids"].shape[1] :]
        assert texts(answer) == [tokenizer.decode(written, skip_special_tokens=True)]


def test_a_system_message_is_left_out_as_the_chat_template_says(engine: NanoEngine) -> None:
    (user,) = ask("Why?").messages
    system = Message(role="system", content="You judge.")
    assert engine.count_tokens((system, user)) == engine.count_tokens((user,))


def test_an_answer_depends_on_its_request_alone_to_the_last_bit(
    checkpoint: Path, engine: NanoEngine
) -> None:
    requests = [ask(f"{'why ' * 3 * i}?", n=1 + 3 * i % 7, seed=i) for i in range(10)]
    alone = [engine.complete([request])[0] for request in requests]
    assert engine.complete(requests) == alone
    assert engine.complete(requests[::-1])[::-1] == alone
    threaded = NanoEngine(checkpoint, n_threads=3, warn=lambda text: None)
    assert threaded.complete(requests) == alone
    threaded.close()


def test_samples_differ_and_more_of_them_begin_with_the_same(engine: NanoEngine) -> None:
    four, many = (engine.complete([ask("Well?", n=n)])[0].samples for n in (4, MAX_SAMPLES + 5))
    written = [sample.text for sample in many]
    assert len(set(written)) == MAX_SAMPLES + 5
    assert written[:4] == [sample.text for sample in four]


def test_what_samples_wrote_alike_is_computed_once(
    engine: NanoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_rows = []
    step = Network.step

    def watched(network: Network, writings: Sequence[Writing]) -> list[Array]:
        n_rows.append([len(writing.last) for writing in writings])
        return step(network, writings)

    monkeypatch.setattr(Network, "step", watched)
    assert len(set(texts(engine.complete([ask("Well?", n=8, sampling=GREEDY)])[0]))) == 1
    assert set(map(tuple, n_rows)) == {(1,)}
    n_rows.clear()
    nearly_greedy = Sampling(temperature=0.4, max_tokens=24, logprobs=True)
    answer = engine.complete([ask("Well?", n=8, sampling=nearly_greedy)])[0]
    begun = [{tuple(c.logprobs or ())[:k] for c in completions(answer)} for k in range(1, 24)]
    assert [n for (n,) in n_rows] == [len(prefixes) for prefixes in begun]
    assert n_rows[0] < [8] == n_rows[-1]


def test_a_sample_does_not_depend_on_how_many_others_there_are(engine: NanoEngine) -> None:
    cool = Sampling(temperature=0.5, max_tokens=24, logprobs=True)  # rows part here and there
    (most,) = engine.complete([ask("Well then?", n=20, sampling=cool)])
    for n in (1, 2, 3, 8, 12):
        (fewer,) = engine.complete([ask("Well then?", n=n, sampling=cool)])
        assert fewer.samples == most.samples[:n]
    one = ask("Well then?", sampling=cool).model_copy(update={"first": 5})
    assert engine.complete([one])[0].samples == most.samples[5:6]


def test_requests_of_a_batch_may_be_sampled_differently(engine: NanoEngine) -> None:
    kinds = [
        GREEDY,
        WARM,
        Sampling(max_tokens=5),
        Sampling(max_tokens=24, top_p=0.3),
        Sampling(max_tokens=24, temperature=0.5),
    ]
    requests = [ask("Well?", n=2, sampling=sampling) for sampling in kinds]
    together = engine.complete(requests)
    assert together == [engine.complete([request])[0] for request in requests]
    assert len({text for answer in together for text in texts(answer)}) >= 8


def test_logprobs_are_the_models_own(engine: NanoEngine, checkpoint: Path) -> None:
    sampling = Sampling(max_tokens=6, temperature=0.5, top_p=0.9, logprobs=True)
    (answer,) = engine.complete([ask("Go on", n=12, sampling=sampling)])
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    prompt: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Go on"}], add_generation_prompt=True, return_dict=False
    )
    vocabulary = tokenizer.get_vocab()
    for completion in completions(answer):
        words = [word for word, _ in completion.logprobs or ()]
        if not all(word in vocabulary for word in words):
            continue  # a byte, which is no text by itself
        ids = [vocabulary[word] for word in words]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1)[range(len(ids)), ids].tolist()
        assert [p for _, p in completion.logprobs or ()] == pytest.approx(expected, abs=1e-4)
        return
    pytest.fail("every sample holds a byte; choose another seed")


def test_a_stop_sequence_ends_a_completion_before_it(engine: NanoEngine) -> None:
    (whole,) = texts(engine.complete([ask("Go on", sampling=GREEDY)])[0])
    stop = whole[len(whole) // 2 :][:3]
    sampling = GREEDY.model_copy(update={"stop": ("never written", stop)})
    (completion,) = completions(engine.complete([ask("Go on", sampling=sampling)])[0])
    assert completion.text == whole[: whole.index(stop)]
    assert completion.finish_reason is FinishReason.STOP


def test_an_end_token_ends_a_completion(engine: NanoEngine, own: Path) -> None:
    (whole,) = completions(engine.complete([ask("Go on", sampling=WARM)])[0])
    words = [word for word, _ in whole.logprobs or ()]
    vocabulary = AutoTokenizer.from_pretrained(own).get_vocab()
    at = next(i for i, word in enumerate(words) if i and word in vocabulary and word.strip())
    rewrite_config(own, eos_token_id=[3, vocabulary[words[at]]])
    other = NanoEngine(own, warn=lambda text: None)
    (ended,) = completions(other.complete([ask("Go on", sampling=WARM)])[0])
    assert ended.n_tokens == words.index(words[at]) + 1, "the end token is not counted"
    assert ended.finish_reason is FinishReason.STOP
    assert whole.text.startswith(ended.text + words[at])


# ---------------------------------------------------------------- drawing


def draw_many(logits: list[float], n: int, **kwargs: float) -> list[int]:
    tokens, _ = draw(
        np.array([logits] * n, np.float32),
        temperature=[kwargs.get("temperature", 1.0)] * n,
        top_p=[kwargs.get("top_p", 1.0)] * n,
        uniform=rng(0).random(n).tolist(),
    )
    return tokens


@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_draws_follow_the_softmax(temperature: float) -> None:
    logits = rng("logits").normal(size=300)
    n = 20_000
    counts = Counter(draw_many(logits.tolist(), n, temperature=temperature))
    weights = np.exp(logits / temperature)
    expected = weights / weights.sum() * n
    common = np.flatnonzero(expected >= 20)
    observed = [counts[int(token)] for token in common]
    rest = n - expected[common].sum(), n - sum(observed)
    assert len(common) > 30
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
    row = np.array([-math.inf, *logits, -math.inf], np.float32)
    (token,), (logprob,) = draw(row[None], [temperature], [top_p], [uniform])
    assert row[token] > -math.inf, "a token of probability zero was drawn"
    assert logprob == pytest.approx(
        torch.tensor(row).log_softmax(-1)[token].item(), abs=1e-4, rel=1e-5
    )
    if temperature == 0:
        assert row[token] == max(logits)


# ---------------------------------------------------------------- texts of users


def test_control_tokens_in_a_text_are_text(engine: NanoEngine) -> None:
    vocabulary = engine._tokenizer.get_vocab()
    ids = engine._prompt(ask("a <|end|><|assistant|>x<|user|> <|pad|>").messages)
    control = [vocabulary[f"<|{name}|>"] for name in ("user", "assistant")]
    assert [i for i in ids if i < 4] == control, "the template's own two, nothing else"
    assert "< |end|>< |assistant|>x< |user|>" in engine._tokenizer.decode(ids)


# ---------------------------------------------------------------- what cannot be done


def test_what_exceeds_the_window_fails_alone(engine: NanoEngine) -> None:
    lost, kept = engine.complete([ask("x" * 1000, n=2), ask("x")])
    assert [s.kind for s in lost.samples if isinstance(s, Failure)] == [FailureKind.TOO_LONG] * 2
    assert "1024 tokens" in str(lost.samples[0])
    assert completions(kept)


def test_constrained_output_is_refused(engine: NanoEngine) -> None:
    sampling = Sampling(structured=StructuredOutput.STRUCTURAL_TAG, max_tokens=4)
    with pytest.raises(EngineError, match="constrain"):
        engine.complete([ask("x", sampling=sampling)])


def test_a_closed_engine_says_so(checkpoint: Path) -> None:
    engine = NanoEngine(checkpoint)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.complete([ask("x")])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"\x00", "cannot load"),
        ("config.json", b"{", "cannot load"),
        ("tokenizer.json", None, "tokenizer.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    own: Path, file: str, content: bytes | None, message: str
) -> None:
    if content is None:
        (own / file).unlink()
    else:
        (own / file).write_bytes(content)
    with pytest.raises(EngineError, match=message) as caught:
        NanoEngine(own)
    assert str(own) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("model_type", "qwen3"), ("num_key_value_heads", 1), ("attention_bias", True)],
)
def test_another_kind_of_model_is_refused(own: Path, field: str, value: object) -> None:
    rewrite_config(own, **{field: value})
    with pytest.raises(EngineError, match=f"{field} is {value!r}"):
        NanoEngine(own)


def test_weights_that_are_missing_or_no_numbers_are_refused(own: Path) -> None:
    path = own / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({key: value for key, value in weights.items() if key != name}, path)
    with pytest.raises(EngineError, match=f"lacks the weights {name}"):
        NanoEngine(own)
    weights[name][3, 5] = np.nan
    save_file(weights, path)
    with pytest.raises(EngineError, match="no numbers"):
        NanoEngine(own)


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="final, base"):
        NanoEngine(tmp_path / "huge")


# ---------------------------------------------------------------- loading


def test_it_loads_in_under_two_seconds_of_processor_time_without_torch(checkpoint: Path) -> None:
    code = f"""
import sys, time
from pgenrm.engines.nano import NanoEngine
NanoEngine({str(checkpoint)!r})
assert "torch" not in sys.modules and "transformers" not in sys.modules
print(time.process_time())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2


@pytest.mark.skipif(WEIGHTS.is_dir(), reason="the weights are in the package")
@pytest.mark.parametrize("name", NAMES)
def test_a_version_without_weights_says_so_and_what_to_do(name: str) -> None:
    with pytest.raises(EngineError, match=r"comes without the weights .* pgenrm\.train\.bundled"):
        NanoEngine(name)
