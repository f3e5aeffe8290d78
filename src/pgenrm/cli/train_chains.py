"""`pgenrm train chains`: labelled comparisons in, chains to learn from out."""

import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from pgenrm.cli.judge import RUN, SAMPLING, file_digest
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
from pgenrm.cli.models import ONLY_FOR, ModelOptions, build_evaluator, kind_of
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.rejected import RejectedRows, rejected_path
from pgenrm.engines.protocol import Sampling, StructuredOutput
from pgenrm.errors import InputError
from pgenrm.evaluator import Evaluator
from pgenrm.llm import LanguageModelEvaluator
from pgenrm.prompts import Template
from pgenrm.rows import STDIN, count_rows, load_value, read_comparisons
from pgenrm.sim.card import Card
from pgenrm.sim.world import World
from pgenrm.train.chain_card import ChainCard
from pgenrm.train.chains import Teachers, write_chains
from pgenrm.train.sec import ChainSettings, Fate, SecSet

SIM: Final = "sim"
PROMPTS: Final = "Comparisons and prompts"
TEACHER_ONLY_FOR: Final = {
    **{name: kinds for name, kinds in ONLY_FOR.items() if name != "template"},
    "teacher_template": ONLY_FOR["template"],
    **dict.fromkeys(("temperature", "temperature_step"), (*ONLY_FOR["temperature"], SIM)),
}
"""Options that mean something for some kinds of teacher only."""


def chains_command(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Labelled comparisons, as `pgenrm judge` reads them; '-' is standard input.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Directory to write to; run the same command again to continue.",
            show_default=False,
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            help="attributes (no language model), attributes:FILE, nano (the bundled judge, for "
            "texts of the simulated world), openai:NAME (any OpenAI-compatible server), a "
            "directory or hub id, or sim:DIRECTORY (samples the posterior over users of a world "
            "that `pgenrm simulate` wrote there).",
            rich_help_panel=MODEL,
        ),
    ] = "attributes",
    base_url: BaseUrl = None,
    teacher_template: Annotated[
        Path | None,
        typer.Option(
            help="A prompt of your own for the teacher (docs/prompts.md).", rich_help_panel=MODEL
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
    chains: Annotated[
        int,
        typer.Option(
            min=1,
            help="Wanted per comparison and set, over all presentation orders.",
            rich_help_panel=SAMPLING,
        ),
    ] = 1,
    tries: Annotated[
        int, typer.Option(min=1, help="At most, per chain.", rich_help_panel=SAMPLING)
    ] = 4,
    temperature: Annotated[
        float,
        typer.Option(
            min=0, help="Of the first try; of sim: of its posterior.", rich_help_panel=SAMPLING
        ),
    ] = 1.0,
    temperature_step: Annotated[
        float, typer.Option(min=0, help="Added with every try.", rich_help_panel=SAMPLING)
    ] = 0.1,
    top_p: Annotated[float, typer.Option(min=0, max=1, rich_help_panel=SAMPLING)] = 1.0,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest chain.", rich_help_panel=SAMPLING)
    ] = 2048,
    seed: Annotated[int, typer.Option(rich_help_panel=SAMPLING)] = 0,
    history: Annotated[
        int,
        typer.Option(min=0, help="Past choices shown, drawn at random.", rich_help_panel=PROMPTS),
    ] = 3,
    min_history: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Show from so many to --history of them, differently by comparison.",
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    sets: Annotated[
        list[SecSet] | None,
        typer.Option(
            "--set",
            help="Write this set only: each costs requests of its own. Default: both.",
            show_default=False,
            rich_help_panel=PROMPTS,
        ),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option(
            help="The prompt that the chains are to be learnt with; default: chain_signals and "
            "chain_history.",
            show_default=False,
            rich_help_panel=PROMPTS,
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
    retry_lost: Annotated[
        bool,
        typer.Option(
            "--retry-lost",
            help="Ask again about comparisons for which a request failed in an earlier run.",
            rich_help_panel=RUN,
        ),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Keep completions in this file and reuse them.", rich_help_panel=RUN),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Comparisons per batch.", rich_help_panel=RUN)
    ] = 32,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batches under way; default: as the teacher can use.", rich_help_panel=RUN
        ),
    ] = None,
) -> None:
    """Let a teacher write evaluation chains, and keep those that put the chosen response first.

    Writes with_criteria.parquet and history_only.parquet, prompts with their completions, and
    card.md, which tells what was kept of what was asked for.

    Example: pgenrm train chains runs/world/train.jsonl --out runs/chains
    """
    if files.count(STDIN) > 1:
        raise InputError("standard input can be read once only; give - once")
    _check_given(teacher, [name for name in ctx.params if _is_given(ctx, name)])
    step = temperature_step if _kind(teacher) != "attributes" else 0.0
    if min_history is not None and min_history > history:
        raise InputError(
            f"--min-history {min_history} is more than --history {history}; give --history at "
            "least as much"
        )
    settings = ChainSettings(
        sets=tuple(sets or SecSet),
        n_chains=chains,
        temperatures=tuple(round(temperature + step * k, 6) for k in range(tries)),
        n_history=history,
        min_history=min_history,
        seed=seed,
    )
    with ExitStack() as stack:
        teachers, recorded = _teachers(
            ModelOptions(
                model=teacher,
                base_url=base_url,
                template=teacher_template,
                sampling=Sampling(top_p=top_p, max_tokens=max_tokens, structured=structured),
                concurrency=concurrency,
                timeout_s=timeout_s,
                max_retries=max_retries,
                extra_body=extra_body,
                context_window=context_window,
                adapter=adapter,
                device=device,
                cache=cache,
            ),
            stack,
        )
        stderr = Console(stderr=True)
        (out / "work").mkdir(parents=True, exist_ok=True)
        rejected = stack.enter_context(RejectedRows(rejected_path(out / "work/comparisons", files)))
        with counting_progress(stderr) as bars:
            n_total = count_rows(files) if sys.stderr.isatty() else None
            task = bars.add_task("comparisons", total=n_total)
            try:
                card = write_chains(
                    teachers,
                    read_comparisons(files, rejected.add if skip_bad else None),
                    out,
                    settings,
                    template=Template.load(template) if template else None,
                    recorded=recorded,
                    retry_lost=retry_lost,
                    batch_size=batch_size,
                    n_workers=workers,
                    progress=lambda n_done: bars.update(task, completed=n_done),
                )
            except KeyboardInterrupt:
                stderr.print("stopped; run the same command again to continue", style="yellow")
                raise typer.Exit(130) from None
        rejected.report()
        _report(stderr, card, out)


def _kind(teacher: str) -> str:
    return SIM if teacher.partition(":")[0] == SIM else kind_of(teacher)


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _check_given(teacher: str, given: Iterable[str]) -> None:
    for name in given:
        kinds = TEACHER_ONLY_FOR.get(name)
        if kinds and _kind(teacher) not in kinds:
            option = "--" + name.removesuffix("_s").replace("_", "-")
            raise InputError(f"{option} has no effect on --teacher {teacher}; leave it out")


def _teachers(options: ModelOptions, stack: ExitStack) -> tuple[Teachers, dict[str, Any]]:
    """Return evaluators by temperature, and what else their chains depend on."""
    if _kind(options.model) == SIM:
        return _of_world(options.model.partition(":")[2])
    evaluator = build_evaluator(options)
    stack.callback(evaluator.close)
    population = options.model.partition(":")[2] if _kind(options.model) == "attributes" else ""
    recorded = {
        "teacher_template": file_digest(options.template),
        "sampling": evaluator.sampling.model_dump(mode="json", exclude={"temperature"})
        if isinstance(evaluator, LanguageModelEvaluator)
        else None,
        "context_window": options.context_window,
        "extra_body": options.extra_body,
        "adapter": str(options.adapter) if options.adapter else None,
        "population": file_digest(Path(population)) if population else None,
    }

    def at(temperature: float) -> Evaluator:
        if not isinstance(evaluator, LanguageModelEvaluator):
            return evaluator
        sampling = evaluator.sampling.model_copy(update={"temperature": temperature})
        return LanguageModelEvaluator(evaluator.engine, evaluator.template, sampling)

    return at, recorded


def _of_world(directory: str) -> tuple[Callable[[float], Evaluator], dict[str, Any]]:
    """Return a teacher that samples the posterior over users of a written world."""
    if not directory:
        raise InputError("--teacher sim needs the directory of a world, e.g. sim:runs/world")
    try:
        from pgenrm.nano.teacher import PosteriorTeacher
    except ImportError as error:
        raise InputError(
            f"--teacher sim needs pgenrm.nano.teacher, which this installation lacks ({error})"
        ) from error
    card = load_value(Path(directory) / "card.json", Card)
    world = World(card.config, card.seed)
    if card.source != world.source.version:
        raise InputError(
            f"{directory} was made over given responses ({card.source}); the teacher reads texts "
            f"of {world.source.version} only"
        )
    return (
        lambda temperature: PosteriorTeacher(world, temperature=temperature),
        {"world_seed": card.seed, "world": card.config.model_dump(mode="json")},
    )


def _report(console: Console, card: ChainCard, out: Path) -> None:
    n_lost = 0
    for one in card.sets:
        n_lost += one.fates.get(Fate.LOST, 0)
        share = "-" if one.total.share is None else f"{one.total.share:.1%}"
        console.print(
            f"{one.name}: {one.n_rows:,} rows; kept {share} of {one.total.n_asked:,} chains",
            highlight=False,
        )
    if n_lost:
        console.print(f"{n_lost:,} requests failed; --retry-lost asks again", style="yellow")
    console.print(f"wrote {out}; see {out / 'card.md'}", markup=False, soft_wrap=True)
