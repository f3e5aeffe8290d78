"""What judgments depend on besides the data, in one line."""

from hashlib import blake2b
from typing import Any

from pgenrm.attributes.evaluator import VERSION as ATTRIBUTES_VERSION
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.evaluator import Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.prompts import Template

CHAIN_TEMPLATES = ("chain_history", "chain_signals")
"""What `pgenrm.prompts.default_template` chooses from."""


def version_of(evaluator: Evaluator, **settings: Any) -> str:
    """Return who writes with which prompts, and a digest of how.

    Args:
        evaluator: one of ours tells its prompts and sampling; any other only its name.
        settings: of the method; values that `str` writes alike in every run.
    """
    known = ", ".join(f"{name}={_written(value)}" for name, value in sorted(settings.items()))
    prompts = ""
    if isinstance(evaluator, AttributeEvaluator):
        prompts = ATTRIBUTES_VERSION
    elif isinstance(evaluator, LanguageModelEvaluator):
        template = evaluator.template
        versions = [template] if template else [Template.load(name) for name in CHAIN_TEMPLATES]
        prompts = "+".join(each.version for each in versions)
        known += evaluator.sampling.model_dump_json()
        known += getattr(evaluator.engine, "weights_identity", "")
    digest = blake2b(known.encode(), digest_size=4).hexdigest()
    return " ".join(part for part in (evaluator.name, prompts, digest) if part)


def _written(value: object) -> str:
    return ",".join(sorted(map(str, value))) if isinstance(value, frozenset) else str(value)
