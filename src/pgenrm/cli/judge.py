"""`pgenrm judge`: comparisons in, judgments out."""

import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from typing import IO, Annotated, Any

import typer
from rich.console import Console

from pgenrm.accuracy import Tally
from pgenrm.cli.models import ModelOptions, build_evaluator, check_given
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import show_judgment, show_tally
from pgenrm.engines.protocol import Sampling, StructuredOutput
from pgenrm.errors import EngineError, InputError
from pgenrm.judge import PGenRM
from pgenrm.rows import STDIN, RejectedRow, count_rows, read_comparisons
from pgenrm.runs import Run
from pgenrm.types import Comparison, Judgment, ScoreSource

MODEL = "Model"
SAMPLING = "Sampling"
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
            "openai:NAME (any OpenAI-compatible server), or a directory or hub id.",
            rich_help_panel=MODEL,
        ),
    ] = "attributes",
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address of the server, e.g. http://localhost:8000/v1; the key comes from "
            "OPENAI_API_KEY.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            help="A prompt template of your own (docs/prompts.md).", rich_help_panel=MODEL
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="A LoRA adapter for a local model.", rich_help_panel=MODEL)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cuda, mps or cpu; default: the best.", rich_help_panel=MODEL)
    ] = None,
    context_window: Annotated[
        int | None,
        typer.Option(help="Tokens of prompt and chain; default: ask.", rich_help_panel=MODEL),
    ] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests under way at once.", rich_help_panel=MODEL)
    ] = 64,
    timeout_s: Annotated[
        float, typer.Option("--timeout", help="Seconds per request.", rich_help_panel=MODEL)
    ] = 600.0,
    max_retries: Annotated[
        int,
        typer.Option(
            min=0,
            help="Repeats of a failed request, ever later; 8 wait 1 to 2 minutes in all.",
            rich_help_panel=MODEL,
        ),
    ] = 8,
    structured: Annotated[
        StructuredOutput,
        typer.Option(help="Constrain the JSON tail on servers that can.", rich_help_panel=MODEL),
    ] = StructuredOutput.OFF,
    m: Annotated[
        int,
        typer.Option("-m", min=1, help="Chains per comparison (Ind-m).", rich_help_panel=SAMPLING),
    ] = 8,
    history: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Past choices shown, drawn at random; default: all. The paper uses 3.",
            rich_help_panel=SAMPLING,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(min=0, rich_help_panel=SAMPLING)] = 1.0,
    top_p: Annotated[float, typer.Option(min=0, max=1, rich_help_panel=SAMPLING)] = 1.0,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest chain.", rich_help_panel=SAMPLING)
    ] = 2048,
    seed: Annotated[int, typer.Option(rich_help_panel=SAMPLING)] = 0,
    scores: Annotated[
        ScoreSource,
        typer.Option(
            help="Which total counts: recomputed from the rubric, or as the chain states it.",
            rich_help_panel=SAMPLING,
        ),
    ] = ScoreSource.RUBRIC,
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
    """
    sampling = Sampling(
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, structured=structured
    )
    if retry_unscored and out is None:
        raise InputError("--retry-unscored needs --out, the run to continue")
    if files.count(STDIN) > 1:
        raise InputError("standard input can be read once only; give - once")
    check_given(model, [name for name in ctx.params if _is_given(ctx, name)])
    evaluator = build_evaluator(
        ModelOptions(
            model=model,
            base_url=base_url,
            template=template,
            sampling=sampling,
            concurrency=concurrency,
            timeout_s=timeout_s,
            max_retries=max_retries,
            context_window=context_window,
            adapter=adapter,
            device=device,
            cache=cache,
        )
    )
    settings: dict[str, Any] = {
        "model": model,
        "m": m,
        "history": history,
        "scores": scores.value,
        "seed": seed,
        "sampling": sampling.model_dump(mode="json"),
        "context_window": context_window,
        "template": file_digest(template),
        "population": file_digest(Path(model.removeprefix("attributes:")))
        if model.startswith("attributes:")
        else None,
        "adapter": str(adapter) if adapter else None,
        "evaluator": evaluator.name,
    }
    rm = PGenRM(
        evaluator,
        m,
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
        _judge(rm, comparisons, run, n_total, as_json=json_lines, n_shown=show)
        rejected.report()


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _judge(
    rm: PGenRM,
    comparisons: Iterable[Comparison],
    run: Run | None,
    n_total: int | None,
    *,
    as_json: bool,
    n_shown: int,
) -> None:
    stdout, stderr = Console(), Console(stderr=True)
    tally = run.tally if run else Tally()
    n_left_to_show = 0 if as_json or run else n_shown
    reason = "it was judged in an earlier run; --retry-unscored judges it again"
    was_stopped = False

    def stop(*_: object) -> None:
        nonlocal was_stopped
        was_stopped = True
        raise KeyboardInterrupt

    on_interrupt = signal.signal(signal.SIGINT, stop)
    try:
        with counting_progress(stderr) as progress:
            task = progress.add_task("judging", total=n_total, completed=tally.n_judged)
            for comparison, judgment in _paired(rm, comparisons):
                if was_stopped:  # libraries may swallow the exception
                    raise KeyboardInterrupt
                if run:
                    run.add(judgment)
                else:
                    tally.add(judgment.user_id, judgment.outcome, is_scored=bool(judgment.chains))
                if judgment.failures:
                    reason = judgment.failures[0].failure.reason
                if as_json:
                    typer.echo(judgment.model_dump_json())
                if n_left_to_show:
                    show_judgment(stdout, comparison, judgment)
                    n_left_to_show -= 1
                progress.advance(task)
    except BaseException:
        if not was_stopped:  # else it is a KeyboardInterrupt, as such or wrapped by a library
            raise
        how = (
            "run the same command again to continue" if run else "use --out to be able to continue"
        )
        stderr.print(f"stopped after {tally.n_judged} judgments; {how}", style="yellow")
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    show_tally(stderr, tally)
    if tally.n_judged and tally.n_unscored == tally.n_judged:
        raise EngineError(f"no comparison could be scored; the last one: {reason}")


def _paired(rm: PGenRM, comparisons: Iterable[Comparison]) -> Iterator[tuple[Comparison, Judgment]]:
    """Yield every comparison with its judgment; only those under way are held."""
    under_way: deque[Comparison] = deque()

    def noted() -> Iterator[Comparison]:
        for comparison in comparisons:
            under_way.append(comparison)
            yield comparison

    for judgment in rm.judge(noted()):
        yield under_way.popleft(), judgment


class RejectedRows:
    """The rows that were left out, written beside the output with their reasons."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_rows = 0
        self._file: IO[str] | None = None

    def __enter__(self) -> "RejectedRows":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def add(self, row: RejectedRow) -> None:
        """Write one row; the file is made with the first."""
        self._file = self._file or self.path.open("w", encoding="utf-8")
        self._file.write(row.model_dump_json() + "\n")
        self.n_rows += 1

    def report(self) -> None:
        """Say on stderr how many rows were left out and where they are."""
        if self.n_rows:
            Console(stderr=True).print(
                f"{self.n_rows} bad rows left out, see {self.path}", style="yellow", markup=False
            )


def rejected_path(out: Path | None, files: Sequence[str]) -> Path:
    """Name the file for rejected rows: beside the output, else beside the first input.

    Raises:
        InputError: it is one of the inputs.
    """
    first = Path(files[0])
    beside = out or (first if first.is_file() else Path("stdin"))
    path = beside.with_name(beside.name + ".rejected.jsonl")
    if path in map(Path, files):
        raise InputError(f"rejected rows would overwrite the input {path}; rename it")
    return path


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
