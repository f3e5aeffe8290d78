"""What `--model` means: from a name to an evaluator."""

from pathlib import Path

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.model import AttributeModel
from pgenrm.engines.cached import CachedEngine
from pgenrm.engines.protocol import Engine, Sampling
from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.prompts import Template
from pgenrm.types import Value


class ModelOptions(Value):
    """Everything of the command line that says who writes the chains."""

    model: str = "attributes"
    base_url: str | None = None
    template: Path | None = None
    sampling: Sampling = Sampling()
    concurrency: int = 64
    timeout_s: float = 600.0
    max_retries: int = 8
    context_window: int | None = None
    adapter: Path | None = None
    device: str | None = None
    cache: Path | None = None


def build_evaluator(options: ModelOptions) -> Evaluator:
    """Build the evaluator that the options name.

    `attributes` (or `attributes:FILE` with a fitted population), `openai:NAME` for a server, or
    anything else as a directory or hub id of a transformers checkpoint.

    Raises:
        InputError: options that do not go together.
        MissingExtraError: the engine's extra is not installed.
        EngineError: the model cannot be loaded.
    """
    kind, _, name = options.model.partition(":")
    if kind == "attributes":
        return _attribute_evaluator(options, name)
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
        )
        template_file = options.template
    else:
        from pgenrm.engines.local import LocalEngine

        if options.base_url:
            raise InputError("--base-url goes with --model openai:NAME")
        local = LocalEngine(options.model, device=options.device, adapter=options.adapter)
        engine, template_file = local, options.template or local.template_file
    if options.cache:
        engine = CachedEngine(engine, options.cache)
    template = Template.load(template_file) if template_file else None
    return LanguageModelEvaluator(engine, template=template, sampling=options.sampling)


def _attribute_evaluator(options: ModelOptions, fitted: str) -> AttributeEvaluator:
    needs_model = {
        "--base-url": options.base_url,
        "--template": options.template,
        "--adapter": options.adapter,
        "--cache": options.cache,
    }
    for option, value in needs_model.items():
        if value is not None:
            raise InputError(f"{option} needs a language model; add --model PATH or openai:NAME")
    return AttributeEvaluator(AttributeModel.load(Path(fitted)) if fitted else None)
