"""What `--model` means: from a name to an evaluator."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.model import AttributeModel
from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.protocol import Engine, Sampling
from pgenrm.errors import InputError
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.prompts import Template
from pgenrm.types import Value

ModelEvaluator = AttributeEvaluator | LanguageModelEvaluator
"""Writes chains and applies rubrics."""


class ModelOptions(Value):
    """Everything of the command line that says who writes the chains."""

    model: str = "attributes"
    base_url: str | None = None
    template: Path | None = None
    sampling: Sampling | None = None
    """None samples at `temperature_of` the model."""
    concurrency: int = 64
    timeout_s: float = 600.0
    max_retries: int = 8
    context_window: int | None = None
    extra_body: str = "{}"
    """JSON of further fields of every call to a server."""
    adapter: Path | None = None
    device: str | None = None
    cache: Path | None = None


LANGUAGE_MODELS = ("openai", "local", "nano")
NANO_CHAIN_TOKENS = 640
"""Upper bound on chains of the bundled judge: with 6 past choices and 4 responses they had up to
567 tokens, and their prompts fit into the rest of its window."""
TEMPERATURE = 1.0
"""The paper's."""
NANO_TEMPERATURE = 0.5
"""So small a model is not sure enough of a step with one right answer to be sampled as it is: at 1
it draws wrong ones (docs/log.md)."""
ONLY_FOR = {
    "base_url": ("openai",),
    "concurrency": ("openai",),
    "timeout_s": ("openai",),
    "max_retries": ("openai",),
    "context_window": ("openai",),
    "structured": ("openai",),
    "extra_body": ("openai",),
    "adapter": ("local",),
    "device": ("local",),
    "template": ("openai", "local"),
    **dict.fromkeys(("cache", "temperature", "top_p", "max_tokens"), LANGUAGE_MODELS),
}
"""Options that mean something for some kinds of model only."""


def kind_of(model: str) -> str:
    """Return `attributes`, `openai`, `nano` or `local`."""
    kind = model.partition(":")[0]
    return kind if kind in {"attributes", "openai", "nano"} else "local"


def check_given(model: str, given: Iterable[str]) -> None:
    """Refuse options that would be ignored.

    Raises:
        InputError: one of the given options means nothing for this kind of model.
    """
    for name in given:
        kinds = ONLY_FOR.get(name)
        if kinds and kind_of(model) not in kinds:
            option = "--" + name.removesuffix("_s").replace("_", "-")
            names = {"openai": "openai:NAME", "local": "PATH", "nano": "nano"}
            needed = " or ".join(names[k] for k in kinds)
            raise InputError(f"{option} has no effect on --model {model}; it needs {needed}")


def temperature_of(model: str, given: float | None = None) -> float:
    """Return the temperature that was given, or what a model of this kind is sampled at."""
    if given is not None:
        return given
    return NANO_TEMPERATURE if kind_of(model) == "nano" else TEMPERATURE


def build_evaluator(options: ModelOptions) -> ModelEvaluator:
    """Build the evaluator that the options name.

    `attributes` (or `attributes:FILE` with a fitted population), `openai:NAME` for a server, `nano`
    for the bundled judge (`nano:plain` for one that writes no chains, `nano:base` for what both
    began as, `nano:DIR` for a checkpoint of their kind), or anything else as a directory or hub id
    of a transformers checkpoint.

    Raises:
        InputError: options that do not go together.
        MissingExtraError: the engine's extra is not installed.
        EngineError: the model cannot be loaded.
    """
    kind, name = kind_of(options.model), options.model.partition(":")[2]
    sampling = options.sampling or Sampling(temperature=temperature_of(options.model))
    if kind == "attributes":
        return AttributeEvaluator(AttributeModel.load(Path(name)) if name else None)
    if kind == "openai":
        from pgenrm.engines.openai import OpenAIEngine

        if not name:
            raise InputError("--model openai: needs the name of a model, e.g. openai:Qwen3-8B")
        engine: Engine = OpenAIEngine(
            name,
            base_url=options.base_url,
            concurrency=options.concurrency,
            timeout_s=options.timeout_s,
            max_retries=options.max_retries,
            context_window=options.context_window,
            extra_body=_object(options.extra_body),
        )
        template_file = options.template
    elif kind == "nano":
        from pgenrm.engines.nano import NanoEngine

        engine, template_file = NanoEngine(name or "final", warn=_note), None
        max_tokens = min(sampling.max_tokens, NANO_CHAIN_TOKENS)
        sampling = sampling.model_copy(update={"max_tokens": max_tokens})
    else:
        from pgenrm.engines.local import LocalEngine

        if "/" not in options.model and not Path(options.model).is_dir():
            raise InputError(
                f"--model {options.model}: no such directory; use attributes, openai:NAME, nano, "
                "a directory, or a hub id such as Qwen/Qwen3-8B"
            )
        local = LocalEngine(options.model, device=options.device, adapter=options.adapter)
        engine, template_file = local, options.template or local.template_file
    if options.cache:
        engine = CachedEngine(engine, options.cache)
    template = Template.load(template_file) if template_file else None
    return LanguageModelEvaluator(engine, template=template, sampling=sampling)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise InputError(f"--extra-body is no JSON: {error}; found {text!r}") from error
    if not isinstance(found, dict):
        raise InputError(f"--extra-body must be a JSON object, found {text!r}")
    return found


def _note(text: str) -> None:
    Console(stderr=True).print(f"note: {text}", style="yellow", markup=False, soft_wrap=True)
