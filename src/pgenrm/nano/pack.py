"""Put a checkpoint into the package: `python -m pgenrm.nano.pack CHECKPOINT NAME`.

What is written is itself a checkpoint in half precision, so that training can start from it.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from safetensors.numpy import load_file, save_file

from pgenrm.engines.nano import FILES, NAMES, WEIGHTS, NanoEngine
from pgenrm.errors import InputError

MAX_BYTES = 16 * 2**20
"""Of all models of the package together."""
TOKENIZER_CONFIG = "tokenizer_config.json"
"""Copied too: transformers wants it, the engine does not."""


def pack(checkpoint: Path, name: str, folder: Path = WEIGHTS) -> Path:
    """Write a checkpoint in half precision and try it; return its directory.

    Args:
        checkpoint: directory that transformers saved, weights in float32 or float16.
        name: one of `pgenrm.engines.nano.NAMES`.
        folder: holds a directory for each name.

    Raises:
        InputError: the name is unknown, a weight does not fit half precision, or all models are too
            large together.
        EngineError: the engine cannot run the checkpoint.
    """
    if name not in NAMES:
        raise InputError(f"{name!r} is no model of the package; use one of {', '.join(NAMES)}")
    NanoEngine(checkpoint).close()
    weights = load_file(checkpoint / "model.safetensors")
    with np.errstate(over="ignore"):
        halves = {key: weights[key].astype(np.float16) for key in sorted(weights)}
    for key, half in halves.items():
        if not np.isfinite(half).all():
            raise InputError(f"{checkpoint}: {key} has values beyond half precision")
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    save_file(halves, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    text = json.dumps(config | {"dtype": "float16"}, indent=2, sort_keys=True)
    (target / "config.json").write_text(text + "\n", "utf-8")
    for file in {*FILES, TOKENIZER_CONFIG} - {"model.safetensors", "config.json"}:
        (target / file).write_bytes((checkpoint / file).read_bytes())
    NanoEngine(target).close()
    n_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if n_bytes > MAX_BYTES:
        raise InputError(
            f"{folder} has {n_bytes:,} bytes, more than the {MAX_BYTES:,} that the package may "
            "hold; make the model smaller"
        )
    return target


def _main(
    checkpoint: Annotated[Path, typer.Argument(help="Directory that transformers saved.")],
    name: Annotated[str, typer.Argument(help=f"{' or '.join(NAMES)}.")],
) -> None:
    """Put a checkpoint into the package, in half precision."""
    typer.echo(pack(checkpoint, name))


if __name__ == "__main__":
    typer.run(_main)
