"""What goes into the package as the bundled judge, and texts that it does not know."""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from pgenrm.engines.nano import NAMES, UNFAMILIAR, WEIGHTS, NanoEngine
from pgenrm.engines.protocol import ChatRequest, Sampling
from pgenrm.errors import EngineError, InputError
from pgenrm.history import draw_pairs
from pgenrm.nano import pack as packing
from pgenrm.nano.pack import MAX_BYTES, pack
from pgenrm.prompts import default_template
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.world import World
from pgenrm.types import Comparison, Message, User
from tests.doc_blocks import ROOT
from tests.nano_checkpoint import make_nano_checkpoint
from tests.test_cli import Terminal, pgenrm, rows

pytestmark = pytest.mark.local  # checkpoints are made with transformers

__all__ = ["pgenrm"]  # the fixture

REAL_TEXTS = ROOT.parent / "shared" / "data" / "responses.jsonl.gz"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nano_checkpoint(tmp_path_factory.mktemp("nano"))


def simulated(n: int) -> Iterator[Comparison]:
    """Comparisons with 0 to 6 past choices."""
    for i, one in enumerate(World(WorldConfig()).comparisons("test_unseen", n)):
        yield one.model_copy(update={"user": draw_pairs(one.user, i % 7, 0, one.id)})


def prompt(one: Comparison) -> tuple[Message, ...]:
    return default_template(one.user).render(one.user, one.context, one.responses)


# ---------------------------------------------------------------- packing


def test_what_is_packed_is_the_checkpoint_in_half_precision(
    checkpoint: Path, tmp_path: Path
) -> None:
    packed = pack(checkpoint, "final", tmp_path)
    assert packed == tmp_path / "final"
    before, after = (load_file(d / "model.safetensors") for d in (checkpoint, packed))
    assert {value.dtype for value in after.values()} == {np.dtype(np.float16)}
    assert before.keys() == after.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(value.astype(np.float16), after[name])

    request = ChatRequest(
        messages=prompt(next(simulated(1))), sampling=Sampling(temperature=0, max_tokens=16)
    )
    rounded = tmp_path / "rounded"
    model = AutoModelForCausalLM.from_pretrained(packed, dtype="float32")
    model.save_pretrained(rounded)
    for file in ("tokenizer.json", "chat_template.jinja"):
        (rounded / file).write_bytes((checkpoint / file).read_bytes())
    (expected,) = NanoEngine(rounded).complete([request])
    assert NanoEngine(packed).complete([request]) == [expected]


def test_packing_again_gives_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    once, again = (pack(checkpoint, "base", tmp_path / name) for name in ("once", "again"))
    assert [f.name for f in sorted(once.iterdir())] == [f.name for f in sorted(again.iterdir())]
    for file in once.iterdir():
        assert file.read_bytes() == (again / file.name).read_bytes(), file.name


def test_only_the_models_of_the_package_are_packed(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="final, base"):
        pack(checkpoint, "best", tmp_path)
    with pytest.raises(EngineError, match="cannot be read"):
        pack(tmp_path / "none", "final", tmp_path)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    own = make_nano_checkpoint(tmp_path / "own")
    weights = load_file(own / "model.safetensors")
    weights["model.norm.weight"][0] = 1e6
    save_file(weights, own / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.norm\.weight has values beyond half precision"):
        pack(own, "final", tmp_path / "packed")


def test_a_package_that_gets_too_large_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_BYTES", 1000)
    with pytest.raises(InputError, match="more than the 1,000"):
        pack(checkpoint, "final", tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_models_of_the_package_load_and_are_small(name: str) -> None:
    if not (WEIGHTS / name).is_dir():
        pytest.skip(f"this checkout has no weights {name}; make train-nano writes them")
    NanoEngine(name).close()
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*")) <= MAX_BYTES


# ---------------------------------------------------------------- texts of other worlds


def test_texts_of_the_simulated_world_raise_no_warning(checkpoint: Path) -> None:
    warnings: list[str] = []
    engine = NanoEngine(checkpoint, warn=warnings.append)
    for one in simulated(140):
        engine.count_tokens(prompt(one))
    assert warnings == []


def test_other_texts_raise_one_warning(checkpoint: Path) -> None:
    warnings: list[str] = []
    engine = NanoEngine(checkpoint, warn=warnings.append)
    other = (Message(role="user", content="Which of these two answers would you rather read?"),)
    for _ in range(3):
        engine.count_tokens(other)
    assert warnings == [UNFAMILIAR]


@pytest.mark.skipif(not REAL_TEXTS.is_file(), reason="needs ../shared/data/responses.jsonl.gz")
def test_answers_of_large_models_raise_a_warning(checkpoint: Path) -> None:
    with gzip.open(REAL_TEXTS, "rt", encoding="utf-8") as lines:
        read = [json.loads(line) for line in islice(lines, 30)]
    known = []
    for row in read:
        warnings: list[str] = []
        one = Comparison(
            id=row["id"],
            user=User(id="u"),
            context=(Message(role="user", content=row["instruction"]),),
            responses=tuple(row["responses"].values())[:2],
        )
        NanoEngine(checkpoint, warn=warnings.append).count_tokens(prompt(one))
        known += [] if warnings else [row["id"]]
    assert known == []


# ---------------------------------------------------------------- in the terminal


def test_judge_says_once_that_texts_are_of_another_world(
    pgenrm: Terminal, checkpoint: Path
) -> None:
    args = ("judge", "-", "--json", "--model", f"nano:{checkpoint}", "-m", 2, "--max-tokens", 8)
    done = pgenrm(*args, stdin=rows(3))
    assert done.err.count("note: ") == 1
    assert UNFAMILIAR in done.err
    records = [json.loads(line) for line in done.out.splitlines()]
    assert [record["outcome"] for record in records] == ["unscored"] * 3
    assert {record["evaluator"] for record in records} == {f"nano:{checkpoint}"}


def test_judge_asks_the_bundled_judge_within_its_window(pgenrm: Terminal, checkpoint: Path) -> None:
    lines = "".join(one.model_dump_json() + "\n" for one in simulated(1))
    done = pgenrm("judge", "-", "--json", "--model", f"nano:{checkpoint}", "-m", 1, stdin=lines)
    assert "note: " not in done.err
    assert json.loads(done.out)["outcome"] == "unscored"  # random weights


def test_options_of_other_models_are_refused(pgenrm: Terminal) -> None:
    done = pgenrm("judge", "-", "--model", "nano", "--device", "cpu", stdin=rows(1))
    assert done.code == 2
    assert "--device has no effect on --model nano" in done.err
