"""`pgenrm bench grade`: answers to LaMP-QA graded by the hidden rubrics."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pgenrm.bench.grading import grade_answers
from pgenrm.cli.models import ModelOptions, build_evaluator, kind_of
from pgenrm.data.lampqa import CANDIDATES, load_lampqa
from pgenrm.errors import EngineError, InputError
from pgenrm.llm import LanguageModelEvaluator


def grade_command(
    folder: Annotated[
        Path, typer.Argument(help="Holds LaMP-QA and the answers to it.", show_default=False)
    ],
    out: Annotated[
        Path,
        typer.Option(help="File of answers to write, with the scores added.", show_default=False),
    ],
    model: Annotated[str, typer.Option(help="The judge: openai:NAME, or a directory or hub id.")],
    base_url: Annotated[str | None, typer.Option(help="Address of the server.")] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help=f"The answers; default: {CANDIDATES} in the folder.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Of the hub.")] = "test",
) -> None:
    """Grade answers to LaMP-QA by the hidden rubrics, for ranking policies; once per judge.

    Example: pgenrm bench grade data --model openai:Qwen3-32B --out data/graded.jsonl
    """
    if kind_of(model) == "attributes":
        raise InputError("grading needs a language model; name one with --model")
    options = ModelOptions(model=model, base_url=base_url, cache=out.with_suffix(".sqlite"))
    lampqa = load_lampqa(folder, candidates=candidates, split=split)
    with closing(build_evaluator(options)) as evaluator:
        assert isinstance(evaluator, LanguageModelEvaluator)
        graded, lost = grade_answers(evaluator.engine, lampqa.items)
    partial = out.with_name(out.name + ".partial")  # `out` may be the file that was read
    partial.write_text("".join(answer.model_dump_json() + "\n" for answer in graded), "utf-8")
    partial.replace(out)
    stderr = Console(stderr=True)
    stderr.print(f"graded {len(graded) - len(lost)} of {len(graded)} answers: {out}", markup=False)
    if lost:
        raise EngineError(
            f"{len(lost)} answers have no grade, e.g. that of {lost[0].model} to "
            f"{lost[0].question}: {lost[0].failure.reason}; run it again to ask for them"
        )
