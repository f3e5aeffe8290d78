"""Small rows and recipes for tests of training: a run takes a second once TRL is loaded."""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pgenrm.train.recipe import SftRecipe, load_recipe

N_ROWS = 24
LAUNCH_TWO = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2"),
    *("--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
]
"""A command in two processes on the CPU."""


def chat_rows(n: int = N_ROWS) -> list[dict[str, Any]]:
    """Rows of uneven lengths, with the columns that chains have."""
    return [
        {
            "id": f"r{i}",
            "prompt": [{"role": "user", "content": "a kind reply " * (1 + i % 5)}],
            "completion": [{"role": "assistant", "content": f"score {i % 3} " * (1 + i % 4)}],
            "order": [0, 1],
            "label": i % 2,
        }
        for i in range(n)
    ]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def settings(model: Path, data: Path, *more: str) -> list[str]:
    """What a test overrides in the shipped recipe `sft/tiny`; the last word counts."""
    return [
        *(f"model.path={model}", f"data.path={data}", "trl.report_to=[]"),
        *("trl.dataloader_pin_memory=false", *more),
    ]


def tiny_recipe(model: Path, data: Path, *more: str) -> SftRecipe:
    return load_recipe("sft/tiny", SftRecipe, settings(model, data, *more))


def losses(out: Path) -> dict[int, tuple[float, float]]:
    """Loss and gradient norm by step."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text("utf-8").splitlines()]
    return {row["step"]: (row["loss"], row["grad_norm"]) for row in rows if "loss" in row}
