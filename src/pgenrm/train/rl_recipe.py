"""What the recipes of stages 2 and 3 hold; nothing heavy is imported to read one."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from pgenrm.train.hardness import HardnessSpec, Schedule
from pgenrm.train.process_judge import PATIENCE_S
from pgenrm.train.recipe import StageRecipe
from pgenrm.types import Value

NOT_NANO: Final = (
    *("top_k", "min_p", "repetition_penalty", "generation_kwargs"),
    *("use_vllm", "use_transformers_continuous_batching"),
)
"""Settings of TRL about sampling that the network of the `nano` engine does not know."""


class GrpoRecipe(StageRecipe):
    """What the recipes of both stages hold."""

    template: str = "chain_history"
    """Name of a built-in prompt, or a Jinja file."""
    n_history: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)]
    """Numbers of past choices in a prompt, one of which is drawn for each."""
    max_tokens: PositiveInt | None = None
    """Of prompt and chain together; None: as many as the model attends to."""
    rollouts: Literal["transformers", "nano"] = "transformers"
    """Who writes the chains that are learned from: transformers (with `trl.use_vllm`: vLLM), or the
    network of the `nano` engine, which is faster for models of its kind on a processor."""

    @model_validator(mode="after")
    def _can_be_written(self) -> Self:
        if self.rollouts == "nano":
            unknown = [key for key in NOT_NANO if self.trl.get(key)]
            if unknown:
                raise ValueError(
                    f'rollouts "nano" has temperature and top_p only; remove trl.{unknown[0]}'
                )
            if self.model.lora is not None or self.model.quantisation != "none":
                raise ValueError(
                    'rollouts "nano" is for models without adapters; remove model.lora'
                )
        return self


class JudgeSpec(Value):
    """Who rates how far a chain covers the user's criteria."""

    kind: Literal["model", "world"]
    """A language model; or, for comparisons of a simulated world, one that knows its users."""
    model: str | None = None
    """As `pgenrm judge --model`: `openai:NAME`, a directory or a hub id."""
    base_url: str | None = None
    """Of a server for `openai:NAME`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields of every call, e.g. what keeps a model from thinking before it grades."""
    concurrency: PositiveInt = 64
    """Calls under way at once, per training process."""
    patience_s: NonNegativeFloat = PATIENCE_S
    """How long a server that does not answer is waited for before the run stops."""
    world: str | None = None
    """Directory that `pgenrm simulate` wrote."""
    words: Literal["attributes", "nano"] = "attributes"
    """Whose criteria the trained model writes, for `kind = "world"`."""

    @model_validator(mode="after")
    def _says_where(self) -> Self:
        if getattr(self, self.kind) is None:
            raise ValueError(f'of kind "{self.kind}" needs {self.kind}')
        return self


class RlRecipe(GrpoRecipe):
    """Criteria-based Reasoning Enhancement (paper, section 3.2, stage 2)."""

    stage: Literal["rl"] = "rl"
    alpha: NonNegativeFloat
    """Weight of the process reward; 0 goes without it, and without a judge."""
    beta: NonNegativeFloat
    """Weight of the outcome reward. (The weight of the KL term is `trl.beta`.)"""
    judge: JudgeSpec | None = None

    @model_validator(mode="after")
    def _process_has_a_judge(self) -> Self:
        if (self.alpha > 0) != (self.judge is not None):
            raise ValueError(
                "needs a judge exactly where alpha, the weight of its reward, is not 0"
            )
        return self


class CurriculumRecipe(GrpoRecipe):
    """Hard-negative-aware curriculum (paper, section 3.2, stage 3)."""

    stage: Literal["curriculum"] = "curriculum"
    schedule: Schedule
    hardness: HardnessSpec
