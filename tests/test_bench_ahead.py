from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.bench.ahead import embed_ahead, embedding
from pgenrm.bench.methods import MethodOptions, embedder_of, make_method
from pgenrm.bench.run import Task
from pgenrm.data.simulated import world_dataset
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.methods.pgenrm import Personalised
from pgenrm.prototypes.embedder import MINILM, SentenceTransformerEmbedder
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.world import World

FROZEN = ["gpo", "vpl-published", "pal-b+shuffled", "lore"]


def nobody(_: object) -> LanguageModelEvaluator:
    raise AssertionError("no language model is needed")


@pytest.mark.local
def test_no_method_embeds_a_text_of_the_bench_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    config = WorldConfig(n_train=2, n_validation=1, n_test=1, n_history=1)
    data = world_dataset("sim", World(config, seed=2), 8)
    comparisons = [*data.splits["test_seen"], *data.splits["test_unseen"]]
    options = MethodOptions(
        build=nobody,
        model="",
        has_engine=False,
        embedder=MINILM,
        vectors=tmp_path / "vectors.sqlite",
        models=tmp_path / "models",
    )
    embed_ahead(options, FROZEN, data, comparisons)
    assert embedder_of(options).dimension == 384

    def encode(self: SentenceTransformerEmbedder, texts: list[str]) -> None:
        raise AssertionError(f"{len(texts)} texts were embedded late: {texts[0]!r}")

    monkeypatch.setattr(SentenceTransformerEmbedder, "_encode", encode)
    for name in FROZEN:
        method = make_method(options, Task(name, 0), data)
        method.fit(data.splits["train"], data.splits["validation"])
        method.adapt([c.user for c in comparisons])
        assert len(method.score(comparisons)) == len(comparisons)


@pytest.mark.local
def test_every_form_of_pgenrm_embeds_its_analyses_itself_and_finds_the_texts_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    data = world_dataset("sim", World(WorldConfig(n_train=1, n_validation=1, n_test=1), seed=2), 4)
    options = MethodOptions(
        build=lambda _: AttributeEvaluator(),
        model="",
        has_engine=False,
        embedder=MINILM,
        vectors=tmp_path / "vectors.sqlite",
        models=tmp_path / "models",
    )
    names = ["pgenrm-ind8-pro4", "pgenrm-ind16-pro8"]
    embed_ahead(options, names, data, [])
    encode = SentenceTransformerEmbedder._encode
    encoded: list[str] = []

    def note(self: SentenceTransformerEmbedder, texts: list[str]) -> NDArray[np.float32]:
        encoded.extend(texts)
        return encode(self, texts)

    monkeypatch.setattr(SentenceTransformerEmbedder, "_encode", note)
    analysis, of_data = "He wants short answers.", data.splits["train"][0].responses[0]
    for name in names:
        method = make_method(options, Task(name, 0), data)
        assert isinstance(method, Personalised)
        assert method.embedder is not None
        method.embedder.embed([analysis, of_data])
    assert encoded == [analysis, analysis]


def test_nothing_is_embedded_where_no_method_needs_it() -> None:
    assert embedding(["longest", "oracle+shuffled", "pgenrm-ind8"]) == []
    assert embedding(["longest", "gpo", "gpo+shuffled", "lore"]) == ["gpo", "lore"]
    assert embedding(["pgenrm-ind8-pro4+shuffled"]) == ["pgenrm-ind8-pro4"]
