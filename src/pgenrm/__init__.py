"""Personalised generative reward models: judge responses for one user, with reasons.

The names below are the core. `pgenrm.chain` has `parse` and `format`; engines are imported from
their modules (`pgenrm.engines.openai`, `pgenrm.engines.local`) and user prototypes from
`pgenrm.prototypes`, since each needs an extra.
"""

from pgenrm.accuracy import Accuracy, accuracy
from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.attributes.model import AttributeModel
from pgenrm.engines.protocol import Engine, Sampling
from pgenrm.errors import FormatError, InputError, PgenrmError
from pgenrm.evaluator import Evaluator
from pgenrm.judge import PGenRM, RubricCheck
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.prompts import Template
from pgenrm.rows import read_comparisons
from pgenrm.scaling.aggregate import PaperAggregator
from pgenrm.scaling.calibration import Calibration, calibrate
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import StoppingRule
from pgenrm.types import (
    Comparison,
    Criterion,
    EvaluationChain,
    Judgment,
    Message,
    Outcome,
    Preference,
    User,
)

__version__ = "0.1.0"

__all__ = [
    "Accuracy",
    "AttributeEvaluator",
    "AttributeModel",
    "Calibration",
    "Comparison",
    "Criterion",
    "Engine",
    "EvaluationChain",
    "Evaluator",
    "FormatError",
    "InputError",
    "Judgment",
    "LanguageModelEvaluator",
    "Message",
    "Outcome",
    "PGenRM",
    "PaperAggregator",
    "PgenrmError",
    "Preference",
    "RubricCheck",
    "Sampling",
    "Shrinkage",
    "StoppingRule",
    "Template",
    "User",
    "accuracy",
    "calibrate",
    "read_comparisons",
]
