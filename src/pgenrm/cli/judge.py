"""`pgenrm judge`: comparisons in, judgments out."""

import sys
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from pgenrm.cli.judging import judge_all
from pgenrm.cli.model_options import (
    MODEL,
    Adapter,
    BaseUrl,
    Concurrency,
    ContextWindow,
    Device,
    ExtraBody,
    MaxRetries,
    Structured,
    Timeout,
)
from pgenrm.cli.models import ModelOptions, build_evaluator, check_given, temperature_of
from pgenrm.cli.rejected import RejectedRows, rejected_path
from pgenrm.cli.scaling import ERROR, AggregatorName, ScalingOptions, build_scaling, check_scaling
from pgenrm.engines.protocol import Sampling, StructuredOutput
from pgenrm.errors import InputError
from pgenrm.judge import PGenRM
from pgenrm.rows import STDIN, count_rows, read_comparisons
from pgenrm.runs import Run
from pgenrm.scaling.aggregate import ChainScale
from pgenrm.types import ScoreSource

SAMPLING = "Sampling"
SIMILAR = "Similar users"
EFFORT = "Chains until settled"
RUN = "Run and output"


def judge_command(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Comparisons as .jsonl, .json or .gz; '-' reads standard input. A row holds user "
            "(id, history, criteria, ...), context, responses and, where known, label.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="attributes (no language model), attributes:FILE (a fitted population), "
            "nano (the bundled judge, for texts of the simulated world), openai:NAME (any "
            "OpenAI-compatible server), or a directory or hub id.",
            rich_help_panel=MODEL,
        ),
    ] = "attributes",
    base_url: BaseUrl = None,
    template: Annotated[
        Path | None,
        typer.Option(
            help="A prompt template of your own (docs/prompts.md).", rich_help_panel=MODEL
        ),
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    context_window: ContextWindow = None,
    concurrency: Concurrency = 64,
    timeout_s: Timeout = 600.0,
    max_retries: MaxRetries = 8,
    extra_body: ExtraBody = "{}",
    structured: Structured = StructuredOutput.OFF,
    m: Annotated[
        int | None,
        typer.Option(
            "-m",
            "--m",
            min=0,
            help="Chains per comparison with the user's own history (Ind-m). Default: 8; with "
            "--adaptive at most 16, or what the calibration was fitted for.",
            show_default=False,
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    history: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Past choices shown, drawn at random; default: all. The paper uses 3.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="Default: 1, as in the paper; 0.5 for nano.", rich_help_panel=SAMPLING
        ),
    ] = None,
    top_p: Annotated[float, typer.Option(min=0, max=1, rich_help_panel=SAMPLING)] = 1.0,
    max_tokens: Annotated[
        int,
        typer.Option(min=1, help="Longest chain; at most 640 for nano.", rich_help_panel=SAMPLING),
    ] = 2048,
    seed: Annotated[int, typer.Option(rich_help_panel=SAMPLING)] = 0,
    scores: Annotated[
        ScoreSource,
        typer.Option(
            help="Which total counts: recomputed from the rubric, or as the chain states it.",
            rich_help_panel=SAMPLING,
        ),
    ] = ScoreSource.RUBRIC,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--n",
            min=0,
            help="Chains with the histories of as many similar users (Pro-n); needs --prototypes. "
            "Default: 0; with --prototypes and --adaptive at most 8, or what the calibration was "
            "fitted for.",
            show_default=False,
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    prototypes: Annotated[
        Path | None,
        typer.Option(
            help="Directory that `pgenrm prototypes fit` wrote: who is similar to whom.",
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            help="Where the embedder of the prototypes is now: hub id, directory or minilm. "
            "Default: as when they were fitted.",
            show_default=False,
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    aggregator: Annotated[
        AggregatorName,
        typer.Option(
            help="shrinkage trusts neighbours as far as they help; paper counts the mean of the "
            "own and the mean of the neighbours' chains alike.",
            rich_help_panel=SIMILAR,
        ),
    ] = AggregatorName.SHRINKAGE,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Weights, stopping rule and confidence as `pgenrm calibrate` fitted them, with "
            "these prototypes. Default: calibration.json in their directory, where there is one.",
            show_default=False,
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    scale: Annotated[
        ChainScale | None,
        typer.Option(
            help="common puts every chain's scores on one scale first. Default: raw, or as "
            "calibrated.",
            show_default=False,
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    check_rubrics: Annotated[
        bool,
        typer.Option(
            "--check-rubrics",
            help="Try each neighbour's rubric on the user's own past choices and weigh it by that.",
            rich_help_panel=SIMILAR,
        ),
    ] = False,
    hold_out: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="With --check-rubrics: try own chains too, written in so many parts, each without "
            "its share of the history (users with 4 past choices or more).",
            show_default=False,
            rich_help_panel=SIMILAR,
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Draw 2, 4, 8, ... chains and stop when more are not worth it; -m and -n are the "
            "caps.",
            rich_help_panel=EFFORT,
        ),
    ] = False,
    error: Annotated[
        float | None,
        typer.Option(
            help="Share of right verdicts that stopping early may cost, against the caps. Default: "
            f"{ERROR}, or as calibrated.",
            show_default=False,
            rich_help_panel=EFFORT,
        ),
    ] = None,
    json_lines: Annotated[
        bool,
        typer.Option("--json", help="One judgment a line on stdout.", rich_help_panel=RUN),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write judgments to this file; run the same command again to continue.",
            rich_help_panel=RUN,
        ),
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option(
            "--skip-bad",
            help="Go on after bad rows; they and their reasons go to *.rejected.jsonl.",
            rich_help_panel=RUN,
        ),
    ] = False,
    retry_unscored: Annotated[
        bool,
        typer.Option(
            "--retry-unscored",
            help="With --out: judge again what an earlier run left unscored.",
            rich_help_panel=RUN,
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep completions in this file and reuse them.", rich_help_panel=RUN),
    ] = None,
    show: Annotated[
        int,
        typer.Option(min=0, help="Judgments to show in full.", rich_help_panel=RUN),
    ] = 10,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Comparisons per batch.", rich_help_panel=RUN)
    ] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batches under way; default: as the model can use.", rich_help_panel=RUN
        ),
    ] = None,
) -> None:
    """Judge comparisons, each for its own user.

    Shows persona, rubric, scores and verdict; with --json one judgment a line and nothing else on
    standard output.

    Example: pgenrm judge examples/*.json

    With similar users: pgenrm judge FILE -m 8 -n 4 --prototypes DIR
    """
    sampling = Sampling(
        temperature=temperature_of(model, temperature),
        top_p=top_p,
        max_tokens=max_tokens,
        structured=structured,
    )
    if retry_unscored and out is None:
        raise InputError("--retry-unscored needs --out, the run to continue")
    if files.count(STDIN) > 1:
        raise InputError("standard input can be read once only; give - once")
    of_embedder = {"device"} if prototypes else set()
    given = [name for name in ctx.params if name not in of_embedder and _is_given(ctx, name)]
    check_given(model, given)
    scaling_options = ScalingOptions(
        m=m,
        n=n,
        prototypes=prototypes,
        embedder=embedder,
        device=device,
        calibration=calibration,
        aggregator=aggregator,
        scale=scale,
        adaptive=adaptive,
        error=error,
        check_rubrics=check_rubrics,
        hold_out=hold_out,
    )
    check_scaling(scaling_options)
    evaluator = build_evaluator(
        ModelOptions(
            model=model,
            base_url=base_url,
            template=template,
            sampling=sampling,
            concurrency=concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
            extra_body=extra_body,
            context_window=context_window,
            adapter=adapter,
            device=device,
            cache=cache,
        )
    )
    scaling = build_scaling(scaling_options, evaluator)
    for note in scaling.notes:
        Console(stderr=True).print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    settings: dict[str, Any] = {
        "model": model,
        **scaling.settings,
        "history": history,
        "scores": scores.value,
        "seed": seed,
        "sampling": sampling.model_dump(mode="json"),
        "context_window": context_window,
        "extra_body": extra_body,
        "template": file_digest(template),
        "population": file_digest(Path(model.removeprefix("attributes:")))
        if model.startswith("attributes:")
        else None,
        "adapter": str(adapter) if adapter else None,
        "evaluator": evaluator.name,
    }
    rm = PGenRM(
        evaluator,
        scaling.m,
        scaling.n,
        neighbours=scaling.neighbours,
        aggregator=scaling.aggregator,
        stopping=scaling.stopping,
        rubric_check=scaling.rubric_check,
        n_history=history,
        score_source=scores,
        seed=seed,
        batch_size=batch_size,
        workers=workers,
    )
    with ExitStack() as stack:
        stack.callback(evaluator.close)
        rejected = stack.enter_context(RejectedRows(rejected_path(out, files)))
        comparisons = read_comparisons(files, rejected.add if skip_bad else None)
        n_total = count_rows(files) if sys.stderr.isatty() else None
        run = None
        if out is not None:
            run = stack.enter_context(Run(out, settings, retry_unscored=retry_unscored))
            comparisons = run.remaining(comparisons)
        judge_all(rm, comparisons, run, n_total, as_json=json_lines, n_shown=show)
        rejected.report()


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def file_digest(path: Path | None) -> str | None:
    """Fingerprint a file that judgments depend on.

    Raises:
        InputError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return blake2b(path.read_bytes(), digest_size=8).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
