"""A fragment for a model card: results as the hub reads them, in both of its formats."""

from typing import Any, Final

from pgenrm.bench.metrics import ALL
from pgenrm.bench.results import BenchResult, MethodResult
from pgenrm.bench.rows import Kind
from pgenrm.data.arena import REPO_ID as ARENA
from pgenrm.data.prism import REPO_ID as PRISM
from pgenrm.data.reward_bench import REPO_ID as REWARD_BENCH
from pgenrm.errors import InputError, MissingExtraError
from pgenrm.report.tables import PARTS, markdown_table, percent

HUB: Final = {"arena": ARENA, "prism": PRISM, "prbench": REWARD_BENCH}
TASK: Final = "text-ranking"
FULL: Final = "pgenrm-ind8-pro4"


def method_of_card(result: BenchResult, name: str | None = None) -> MethodResult | None:
    """Return the method of this name; by default the paper's full P-GenRM where it was run.

    Otherwise another form of it, which is not chosen by its result; None where there is none.

    Raises:
        InputError: it was not run.
    """
    if name is None:
        ours = [m for m in result.methods if m.kind is Kind.OURS and ALL in m.parts]
        return max(ours, key=lambda m: m.name == FULL, default=None)
    for method in result.methods:
        if method.name == name:
            return method
    raise InputError(
        f"{name!r} is not among the methods: {', '.join(m.name for m in result.methods)}"
    )


def card_fragment(result: BenchResult, method: MethodResult, model: str | None = None) -> str:
    """Write a README fragment: `model-index` as YAML front matter, and the table in words.

    Args:
        result: of the bench.
        method: whose results.
        model: name of the model on the hub; None takes the evaluator's.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import EvalResult, ModelCardData
    except ImportError as error:
        raise MissingExtraError("bench", "writing a model card") from error
    entries = [
        EvalResult(
            task_type=TASK,
            task_name="Personalised preference prediction",
            dataset_type=HUB.get(result.plan.dataset, result.plan.dataset),
            dataset_name=f"{result.plan.dataset}, {PARTS.get(name, name)}",
            dataset_config=name,
            dataset_split="test",
            dataset_revision=result.plan.revision,
            metric_type="accuracy",
            metric_name="accuracy in percent; ties and unscored count as wrong",
            metric_value=round(100 * part.accuracy.value, 2),
        )
        for name, part in method.parts.items()
    ]
    named = model or _model_of(method)
    data = ModelCardData(model_name=named, eval_results=entries)
    table = markdown_table(
        ["comparisons", "n", "users", "accuracy (95 % over users)", "coverage"],
        [
            [
                PARTS.get(name, name),
                f"{part.n:,}",
                f"{part.n_users:,}",
                percent(part.accuracy),
                f"{100 * part.coverage:.1f}",
            ]
            for name, part in method.parts.items()
        ],
    )
    about = f"Method `{method.name}`, version `{', '.join(method.versions)}`; pgenrm bench."
    return "\n".join(["---", data.to_yaml().strip(), "---", "", *table, "", about, ""])


def eval_results(result: BenchResult, method: MethodResult, date: str) -> str:
    """Write the results as a file of `.eval_results/`, which shows on the data set's leaderboard.

    Args:
        result: of the bench.
        method: whose results.
        date: of the run, ISO 8601.

    Raises:
        MissingExtraError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]
    except ImportError as error:
        raise MissingExtraError("bench", "writing evaluation results") from error
    entries: list[dict[str, Any]] = [
        {
            "dataset": {
                "id": HUB.get(result.plan.dataset, result.plan.dataset),
                "task_id": name,
                "revision": result.plan.revision,
            },
            "value": round(100 * part.accuracy.value, 2),
            "date": date,
            "notes": f"{method.name}; 95 % over users {percent(part.accuracy)}; "
            f"coverage {100 * part.coverage:.1f} %; ties and unscored count as wrong",
        }
        for name, part in method.parts.items()
    ]
    return str(yaml_dump(entries))


def _model_of(method: MethodResult) -> str:
    return method.evaluators[0] if method.evaluators else method.name
