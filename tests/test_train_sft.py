"""Supervised fine-tuning of a tiny Llama, by TRL itself."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from pgenrm.engines.local import LocalEngine
from pgenrm.engines.protocol import ChatRequest, Completion, Sampling
from pgenrm.errors import InputError, TrainingError
from pgenrm.train.muon import MuonAdamW
from pgenrm.train.recipe import SftRecipe, load_recipe
from pgenrm.train.record import last_checkpoint
from pgenrm.train.sft import train_sft
from pgenrm.types import Message
from tests.tiny_llama import make_tiny_llama
from tests.train_cases import LAUNCH_TWO, chat_rows, losses, settings, tiny_recipe, write_rows

pytestmark = [
    pytest.mark.local,
    # peft asks transformers in an old way
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

STEPS = ("trl.max_steps=10", "trl.save_steps=4", "trl.train_sampling_strategy=group_by_length")
"""24 rows by 4: the second epoch begins at step 7, after the first checkpoint."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", chat_rows())


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        patch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("cache_of_others")))
        yield


@pytest.fixture(scope="module")
def whole(tiny: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train_sft(tiny_recipe(tiny, rows, *STEPS), out)
    return out


def weights(out: Path, name: str = "model") -> dict[str, torch.Tensor]:
    (file,) = (out / name).glob("*.safetensors")
    return load_file(file)


def distance(a: Path, b: Path) -> float:
    one, other = weights(a), weights(b)
    assert one.keys() == other.keys()
    return max(float((one[k] - other[k]).abs().max()) for k in one)


def test_encoded_rows_are_learned_like_the_same_rows_as_text(tiny: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    texts = [{"prompt": f"a kind reply {i} ", "completion": f"score {i % 3}"} for i in range(8)]
    encoded = []
    for row in texts:
        prompt = tokenizer(row["prompt"])["input_ids"]
        ids = tokenizer(row["prompt"] + row["completion"] + tokenizer.eos_token)["input_ids"]
        assert ids[: len(prompt)] == prompt
        mask = [0] * len(prompt) + [1] * (len(ids) - len(prompt))
        encoded.append({"input_ids": ids, "completion_mask": mask})
    found = {}
    for name, rows in (("text", texts), ("encoded", encoded)):
        data = write_rows(tmp_path / f"{name}.jsonl", rows)
        train_sft(tiny_recipe(tiny, data, "trl.max_steps=3"), tmp_path / name)
        found[name] = losses(tmp_path / name)

    assert found["encoded"] == found["text"]


def status(out: Path) -> tuple[str, str | None]:
    record = json.loads((out / "run.json").read_text("utf-8"))
    return record["status"], record["reason"]


def as_if_killed(whole: Path, out: Path) -> None:
    """Copy a run as it was between its last checkpoint and its weights."""
    copytree(whole, out)
    rmtree(out / "model")
    record = json.loads((out / "run.json").read_text("utf-8"))
    (out / "run.json").write_text(json.dumps(record | {"status": "running", "ended": None}))


def test_a_run_leaves_what_it_learned_and_how(tiny: Path, rows: Path, whole: Path) -> None:
    assert status(whole) == ("finished", None)
    seen = losses(whole)
    assert list(seen) == list(range(1, 11))
    assert seen[10][0] < seen[1][0] / 2
    assert "</svg>" in (whole / "chart.svg").read_text("utf-8")
    assert {"config.json", "chat_template.jinja"} <= {f.name for f in (whole / "model").iterdir()}
    facts = json.loads((whole / "run.json").read_text("utf-8"))["facts"]
    assert facts["n_rows"] == 24
    assert facts["n_parameters"] == sum(
        w.numel() for w in load_file(tiny / "model.safetensors").values()
    )


def test_the_loss_is_on_the_completion_alone(tiny: Path, tmp_path: Path) -> None:
    same = [{"prompt": "a kind reply " * n, "completion": "score"} for n in (1, 9)]
    found = []
    for i, row in enumerate(same):
        data = write_rows(tmp_path / f"{i}.jsonl", [row] * 4)
        out = tmp_path / str(i)
        train_sft(tiny_recipe(tiny, data, "trl.max_steps=1", "trl.learning_rate=0.0"), out)
        found.append(json.loads((out / "run.json").read_text())["facts"])
    n_learned = [f["n_tokens"] - f["n_prompt_tokens"] for f in found]
    assert n_learned[0] == n_learned[1] < found[1]["n_prompt_tokens"]


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    sets = [f"--set={s}" for s in settings(tiny, rows, *STEPS)]
    command = [sys.executable, "-m", "pgenrm", "train", "sft", "sft/tiny", "--out", str(out), *sets]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (out / "checkpoint-4" / "trainer_state.json").exists():
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(out) == ("running", None)
    assert not (out / "model").exists()
    rmtree(out / "checkpoint-8", ignore_errors=True)  # it may have been quick
    (out / "checkpoint-6").mkdir()  # as a kill in the midst of saving leaves it

    record = train_sft(tiny_recipe(tiny, rows, *STEPS), out, resume=True)

    assert [attempt.from_step for attempt in record.attempts] == [0, 4]
    assert not (out / "checkpoint-6").exists()
    assert losses(out) == losses(whole)
    assert distance(out, whole) == 0


def test_a_run_that_was_killed_after_its_last_step_does_no_further_one(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path
) -> None:
    as_if_killed(whole, tmp_path / "run")
    train_sft(tiny_recipe(tiny, rows, *STEPS), tmp_path / "run", resume=True)
    assert status(tmp_path / "run") == ("finished", None)
    assert losses(tmp_path / "run") == losses(whole)
    assert distance(tmp_path / "run", whole) == 0
    names = {file.name for file in (whole / "model").iterdir()}
    assert {file.name for file in (tmp_path / "run" / "model").iterdir()} == names


def test_a_run_with_muon_goes_on_as_if_nothing_had_been(
    tiny: Path, rows: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tiny, rows, *STEPS, "muon_momentum=0.95")
    train_sft(recipe, tmp_path / "whole")
    as_if_killed(tmp_path / "whole", tmp_path / "run")
    for name in ("checkpoint-8", "checkpoint-10"):
        rmtree(tmp_path / "run" / name, ignore_errors=True)

    train_sft(recipe, tmp_path / "run", resume=True)

    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert distance(tmp_path / "run", tmp_path / "whole") == 0


def test_muon_has_the_matrices_and_adamw_the_rest() -> None:
    config = LlamaConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    torch.manual_seed(0)
    ours, theirs = (LlamaForCausalLM(config) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    is_matrix = {n: p.ndim == 2 and n.split(".")[1] == "layers" for n, p in ours.named_parameters()}
    assert sum(is_matrix.values()) == 7
    both = MuonAdamW(ours, lr=0.02, weight_decay=0.1, betas=(0.9, 0.98), momentum=0.9)
    matrices = [p for n, p in theirs.named_parameters() if is_matrix[n]]
    others = [p for n, p in theirs.named_parameters() if not is_matrix[n]]
    apart = (
        torch.optim.Muon(
            matrices, lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=0.02, betas=(0.9, 0.98), weight_decay=0.0),
    )
    for optimisers, model in (((both,), ours), (apart, theirs)):
        for _ in range(3):
            ids = torch.arange(10)[None]
            model(input_ids=ids, labels=ids).loss.backward()
            for optimiser in optimisers:
                optimiser.step()
                optimiser.zero_grad()

    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name


def test_what_is_finished_is_not_done_again(tiny: Path, rows: Path, whole: Path) -> None:
    before = (whole / "run.json").read_text("utf-8")
    train_sft(tiny_recipe(tiny, rows, *STEPS), whole, resume=True)
    assert (whole / "run.json").read_text("utf-8") == before


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    as_if_killed(whole, out)
    rmtree(out / "checkpoint-8")
    rmtree(out / "checkpoint-10")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # the weights take 470,000
    try:
        with pytest.raises(TrainingError, match=r"could not be written.*checkpoint-4 is good"):
            train_sft(tiny_recipe(tiny, rows, *STEPS), out, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert status(out)[0] == "failed"
    assert not (out / "checkpoint-8").exists()
    train_sft(tiny_recipe(tiny, rows, *STEPS), out, resume=True)
    assert status(out) == ("finished", None)
    assert losses(out) == losses(whole)
    assert distance(out, whole) == 0


def test_a_gradient_that_is_no_number_does_not_reach_the_weights(
    tiny: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    steep = ("trl.learning_rate=1e30", "trl.save_steps=1", "trl.warmup_steps=0")
    with pytest.raises(TrainingError, match=r"no finite number at step 2; .*checkpoint-1 is good"):
        train_sft(tiny_recipe(tiny, rows, *steep), out)
    kind, reason = status(out)
    assert kind == "failed"
    assert reason is not None
    assert "step 2" in reason
    assert all(w.isfinite().all() for w in weights(out, "checkpoint-1").values())


def test_samples_show_what_the_model_writes(tiny: Path, rows: Path, tmp_path: Path) -> None:
    more = ("trl.max_steps=4", "samples={every=2, n=2, max_tokens=8}")
    train_sft(tiny_recipe(tiny, rows, *more), tmp_path / "run")
    lines = (tmp_path / "run" / "samples.jsonl").read_text("utf-8").splitlines()
    written = [json.loads(line) for line in lines]
    assert [row["step"] for row in written] == [0, 0, 2, 2, 4, 4]
    assert all(row["is_readable"] is False and row["text"] for row in written)
    plain = tmp_path / "plain"
    train_sft(tiny_recipe(tiny, rows, "trl.max_steps=4"), plain)
    assert losses(plain) == losses(tmp_path / "run")  # samples draw nothing from the run


def test_an_adapter_is_trained_and_the_local_engine_loads_it(
    tiny: Path, rows: Path, tmp_path: Path
) -> None:
    lora = ("model.lora={rank=4, alpha=8, target_modules=['q_proj', 'v_proj']}",)
    more = (*lora, "trl.learning_rate=0.05")
    train_sft(tiny_recipe(tiny, rows, *more), tmp_path / "lora")
    request = ChatRequest(
        messages=(Message(role="user", content="a kind reply"),),
        sampling=Sampling(temperature=0, max_tokens=8),
    )
    texts = []
    for model in (tiny, tmp_path / "lora" / "model"):
        engine = LocalEngine(model, device="cpu")
        (answer,) = engine.complete([request])
        (sample,) = answer.samples
        assert isinstance(sample, Completion)
        texts.append(sample.text)
        engine.close()
    assert texts[0] != texts[1]

    further = tiny_recipe(tmp_path / "lora" / "model", rows, "trl.learning_rate=0.05")
    train_sft(further, tmp_path / "further")
    assert losses(tmp_path / "further")[1][0] < losses(tmp_path / "lora")[1][0]
    with pytest.raises(InputError, match="is an adapter"):
        train_sft(tiny_recipe(tmp_path / "lora" / "model", rows, *lora), tmp_path / "twice")


def test_a_new_model_is_drawn_by_the_seed_and_learns_texts(tiny: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"text": "a kind reply " * 4}] * 16)
    shape = (
        "model.config={model_type='llama', hidden_size=32, num_hidden_layers=2, "
        "num_attention_heads=2, intermediate_size=64, tie_word_embeddings=true}"
    )
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        recipe = tiny_recipe(
            tiny,
            data,
            "model.path=",
            f"model.tokenizer={tiny}",
            shape,
            f"seed={seed}",
            "trl.learning_rate=0.01",
        )
        train_sft(recipe, tmp_path / name)
    assert distance(tmp_path / "a", tmp_path / "b") == 0
    assert distance(tmp_path / "a", tmp_path / "c") > 0
    seen = losses(tmp_path / "a")
    assert seen[8][0] < seen[1][0]
    config = json.loads((tmp_path / "a" / "model" / "config.json").read_text())
    assert config["vocab_size"] == 340


@pytest.mark.slow
def test_the_numbers_reach_tensorboard_and_trackio(tiny: Path, rows: Path, tmp_path: Path) -> None:
    more = ("trl.max_steps=2", "trl.report_to=['tensorboard', 'trackio']", "trl.project=test")
    train_sft(tiny_recipe(tiny, rows, *more), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))
    assert list(Path(os.environ["TRACKIO_DIR"]).glob("test*.db"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("trl.max_length=20", "too long"),
        ("trl.learning_rat=1.0", "did you mean learning_rate"),
        ("trl.output_dir=x", "set by --out"),
        ("trl.save_only_model=true", "cannot be gone on from"),
        ("trl.lr_scheduler_type=cosin", "refuses"),
        ("model.lora={rank=4, alpha=8, target_modules=['q_prj']}", "no linear layer 'q_prj'"),
        ("model.path=nowhere/at-all", "no tokenizer"),
        ("data.path=nowhere", "no such file"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tiny: Path, rows: Path, tmp_path: Path, change: str, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        train_sft(tiny_recipe(tiny, rows, change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_model_is_refused(tiny: Path, rows: Path, tmp_path: Path) -> None:
    shape = (
        "model.config={model_type='llama', vocab_size=100, hidden_size=32, num_hidden_layers=1, "
        "num_attention_heads=2, intermediate_size=64}"
    )
    recipe = tiny_recipe(tiny, rows, "model.path=", f"model.tokenizer={tiny}", shape)
    with pytest.raises(InputError, match="has 340 tokens and a new model embeds 100"):
        train_sft(recipe, tmp_path / "run")


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_accelerate_would_leave_out_is_refused(
    tiny: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU to shard over")
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(InputError, match=f"no {name} without a GPU"):
        train_sft(tiny_recipe(tiny, rows), tmp_path / "run")


@pytest.mark.slow
def test_two_processes_follow_one_with_twice_the_batch(
    tiny: Path, rows: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    sets = settings(tiny, rows, *STEPS, "trl.per_device_train_batch_size=2")
    command = ["pgenrm", "train", "sft", "sft/tiny", "--out", str(out)]
    done = subprocess.run(
        [*LAUNCH_TWO, "-m", *command, *(f"--set={s}" for s in sets)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text("utf-8"))["n_processes"] == 2
    one, two = losses(whole), losses(out)
    assert one.keys() == two.keys()
    for step in one:
        assert two[step] == pytest.approx(one[step], rel=1e-4)
    assert distance(out, whole) < 1e-4


@pytest.mark.slow
def test_a_full_disk_that_one_process_alone_meets_ends_all_of_them_clearly(
    tiny: Path, rows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    (tmp_path / "run.py").write_text("""
import os, resource

if os.environ["RANK"] == "1":  # its random state takes 14,000
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))

from pgenrm.cli import main

main()
""")
    sets = [f"--set={s}" for s in settings(tiny, rows, *STEPS)]
    command = ["train", "sft", "sft/tiny", "--out", str(out), *sets]
    done = subprocess.run(
        [*LAUNCH_TWO, str(tmp_path / "run.py"), *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    assert f"error: {out} could not be written to" in done.stderr
    assert "gloo" not in done.stderr  # what the other process knows of it
    kind, reason = status(out)
    assert kind == "failed"
    assert "could not be written to" in str(reason)
    assert "there is no checkpoint yet" in str(reason)  # the first process had written all of one
    assert last_checkpoint(out) is None


def test_the_shipped_trl_tables_are_known_to_trl(tmp_path: Path) -> None:
    from trl import SFTConfig

    from pgenrm.train.trl_config import trl_config

    for name in ("llama-3.1-8b", "llama-3.1-70b-lora", "qwen3-8b"):
        more = ["data.path=x", "trl.bf16=false", "trl.report_to=[]"]
        recipe = load_recipe(f"sft/{name}", SftRecipe, more)
        assert trl_config(SFTConfig, recipe, tmp_path).max_length == 8192
