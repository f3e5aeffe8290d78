"""`pgenrm bench`: methods over a data set, and two runs compared."""

import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from pgenrm.bench.ahead import embed_ahead, embedding
from pgenrm.bench.methods import (
    REWARD_RECIPE,
    MethodOptions,
    check_names,
    make_method,
    possible,
    tasks_of,
    usage_of,
)
from pgenrm.bench.metrics import ALL, evaluate
from pgenrm.bench.plan import DataSource, load_pinned, note_command, open_plan, pinned_model
from pgenrm.bench.pool import run_tasks
from pgenrm.bench.results import BenchResult
from pgenrm.bench.run import Task
from pgenrm.cli.bench_compare import compare_command
from pgenrm.cli.bench_grade import grade_command
from pgenrm.cli.bench_methods import methods_command
from pgenrm.cli.model_options import (
    MODEL,
    Adapter,
    BaseUrl,
    Concurrency,
    ContextWindow,
    Device,
    ExtraBody,
    MaxRetries,
    Timeout,
)
from pgenrm.cli.models import (
    ModelOptions,
    build_evaluator,
    check_given,
    kind_of,
    temperature_of,
)
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import percent
from pgenrm.cli.stored import dtype_option
from pgenrm.data.lampqa import CANDIDATES
from pgenrm.data.load import NAMES
from pgenrm.data.reward_bench import DOMAINS
from pgenrm.engines.protocol import Sampling
from pgenrm.errors import EngineError, InputError
from pgenrm.prototypes.embedder import MINILM
from pgenrm.report.tables import correlation, points
from pgenrm.scaling.calibration import MIN_USERS
from pgenrm.types import Outcome

RUN: Final = "run"
DATA = "Data"


class _RunByDefault(TyperGroup):
    """Reads `pgenrm bench sim ...` as `pgenrm bench run sim ...`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [RUN, *args]
        rest: list[str] = super().parse_args(ctx, args)
        return rest


bench_app = typer.Typer(
    name="bench",
    cls=_RunByDefault,
    no_args_is_help=True,
    help="Run methods on the same comparisons; every judgment is kept.\n\n"
    f"pgenrm bench {'|'.join(NAMES)}|PATH --methods a,b,... --out DIR",
)


@bench_app.command(RUN)
def bench_command(
    ctx: typer.Context,
    data: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(NAMES)}, or a path with comparisons.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Directory of the bench; run the same command again to continue.",
            show_default=False,
        ),
    ],
    methods: Annotated[
        str,
        typer.Option(
            help="Names with commas between them, as `pgenrm bench methods` lists them, or all "
            "that can be run."
        ),
    ] = "all",
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of every method that learns from others.")
    ] = 1,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Methods under way at once; default: one per core, or one with a local model.",
            show_default=False,
        ),
    ] = None,
    accept_unanswered: Annotated[
        bool,
        typer.Option(
            "--accept-unanswered",
            help="Count comparisons that the model never answers as unscored.",
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            help="Directory for embedded texts, completions and what was learnt, which several "
            "benches may share. Default: that of the bench.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Most comparisons of each test split.", rich_help_panel=DATA),
    ] = None,
    history: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Past choices that every method may see. Default: what the data show; judges and "
            "P-GenRM then draw 3, as the paper does.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(help="Read the data from here instead of the hub.", rich_help_panel=DATA),
    ] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help=f"Answers to the questions of lampqa; default: {CANDIDATES} in the folder.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    fit_on: Annotated[
        str | None,
        typer.Option(
            help="Learn from this data set, by name or path, where DATA has only tests (lampqa, "
            "prbench, a file).",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit of the data on the hub.", rich_help_panel=DATA)
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(
            min=MIN_USERS,
            help="Most validation comparisons that P-GenRM is calibrated on. Default: 800.",
            show_default=False,
            rich_help_panel=DATA,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Of a simulated world and of what is drawn.", rich_help_panel=DATA),
    ] = 0,
    model: Annotated[
        str,
        typer.Option(
            help="Of judges and P-GenRM: attributes (no language model, so no judges), nano (the "
            "bundled judge, for simulated texts), openai:NAME, or a directory or hub id.",
            rich_help_panel=MODEL,
        ),
    ] = "attributes",
    base_url: BaseUrl = None,
    template: Annotated[
        Path | None, typer.Option(help="A chain template of your own.", rich_help_panel=MODEL)
    ] = None,
    adapter: Adapter = None,
    device: Device = None,
    max_retries: MaxRetries = 8,
    extra_body: ExtraBody = "{}",
    concurrency: Concurrency = 64,
    timeout_s: Timeout = 600.0,
    context_window: ContextWindow = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest chain or answer.", rich_help_panel=MODEL)
    ] = 2048,
    reward_base: Annotated[
        str | None,
        typer.Option(
            help="Language model that reward models are fine-tuned from: a directory or a hub id, "
            "also with @revision.",
            show_default=False,
            rich_help_panel=MODEL,
        ),
    ] = None,
    reward_recipe: Annotated[
        str,
        typer.Option(
            help="Settings of reward models: reward_model (LoRA), reward_model_full, or a file.",
            rich_help_panel=MODEL,
        ),
    ] = REWARD_RECIPE,
    embedder: Annotated[
        str,
        typer.Option(
            help="For prototypes and methods on embeddings: minilm, a hub id or a directory.",
            rich_help_panel=MODEL,
        ),
    ] = MINILM,
    embed_dtype: Annotated[str | None, dtype_option(MODEL)] = None,
) -> None:
    """Run methods over a data set.

    Example: pgenrm bench sim --methods attributes,gpo,oracle --limit 200 --out runs/bench
    """
    stderr = Console(stderr=True)
    sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
    check_given(
        model, [n for n, s in sources.items() if s and s.name == "COMMANDLINE" and n != "device"]
    )
    wanted = [name.strip() for name in methods.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"--methods {methods!r} names no method; give names, or all")
    if wanted != [ALL]:
        check_names(wanted)
    source = DataSource(
        target=data,
        folder=folder,
        candidates=candidates,
        fit_on=fit_on,
        revision=revision,
        limit=limit,
        n_history=history,
        seed=seed,
    )
    base = pinned_model(reward_base) if reward_base else None
    with stderr.status(f"loading {data}"):
        source, dataset = load_pinned(source, out)
        items = open_plan(out, source, dataset)
    note_command(out, ["pgenrm", *sys.argv[1:]])
    kept = store or out
    n_processes = processes or (1 if kind_of(model) == "local" else os.cpu_count() or 1)
    options = MethodOptions(
        build=build_evaluator,
        model=ModelOptions(
            model=model,
            base_url=base_url,
            template=template,
            adapter=adapter,
            device=device,
            max_retries=max_retries,
            extra_body=extra_body,
            concurrency=max(1, concurrency // n_processes),
            timeout_s=timeout_s,
            context_window=context_window,
            sampling=Sampling(temperature=temperature_of(model), max_tokens=max_tokens),
            cache=None if kind_of(model) == "attributes" else kept / "completions.sqlite",
        ),
        has_engine=kind_of(model) != "attributes",
        embedder=embedder,
        embed_dtype=embed_dtype,
        vectors=kept / "vectors.sqlite",
        reward_base=base,
        reward_recipe=reward_recipe,
        models=kept / "models",
        n_history=history,
        n_calibration=calibration,
    )
    if wanted == [ALL]:
        wanted, left_out = possible(options, dataset)
        for name, why in left_out.items():
            stderr.print(f"left out: {name} {why}", style="yellow", markup=False, soft_wrap=True)
    tasks = tasks_of(wanted, seeds)
    failed = _run(
        tasks,
        options,
        source,
        out,
        len(items),
        n_processes,
        accept_unanswered=accept_unanswered,
    )
    if len(failed) < len(tasks):
        show_bench(Console(), evaluate(out))
        stderr.print(
            f"records in {out}; see them with: pgenrm report {out}", markup=False, soft_wrap=True
        )
    if failed:
        reasons = "\n".join(f"  {task}: {reason}" for task, reason in failed.items())
        raise EngineError(
            f"{len(failed)} of {len(tasks)} runs did not end; what they judged is kept; the "
            f"same command goes on from there\n{reasons}"
        )


def _run(
    tasks: list[Task],
    options: MethodOptions,
    source: DataSource,
    out: Path,
    n_items: int,
    n_processes: int,
    *,
    accept_unanswered: bool,
) -> dict[Task, str]:
    """Run tasks with a line of progress for each, all at once on a terminal."""
    console = Console(stderr=True)
    ended: set[Task] = set()
    embed = embedding(task.method for task in tasks)
    try:
        with counting_progress(console) as progress:
            lines = {task: progress.add_task(str(task), total=n_items) for task in tasks}

            def watch(task: Task, n_judged: int, has_ended: bool) -> None:
                progress.update(lines[task], completed=n_judged)
                if has_ended and task not in ended:
                    ended.add(task)
                    progress.stop_task(lines[task])
                    if not console.is_terminal:
                        console.print(f"{task}: {n_judged} of {n_items} judged", markup=False)

            return run_tasks(
                tasks,
                partial(make_method, options),
                source,
                out,
                n_processes=n_processes,
                accept_unanswered=accept_unanswered,
                prepare=partial(embed_ahead, options, embed) if embed else None,
                watch=watch,
                usage=partial(usage_of, options),
            )
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to continue", style="yellow")
        raise typer.Exit(130) from None


def show_bench(console: Console, result: BenchResult) -> None:
    """Print the table of a bench."""
    table = Table(box=None, header_style="bold")
    table.add_column("method")
    for name in ("accuracy", "ties", "unscored", "against the best baseline", "chains"):
        table.add_column(name, justify="right")
    for method in result.methods:
        part = method.parts.get(ALL)
        if part is None:
            continue
        n = sum(part.outcomes.values())
        against = part.versus_best
        table.add_row(
            method.name,
            percent(part.accuracy.value, part.accuracy.interval),
            f"{part.outcomes[Outcome.TIE] / n:.1%}",
            f"{part.outcomes[Outcome.UNSCORED] / n:.1%}",
            "" if against is None else points(against.by),
            f"{method.cost.n_chains:.1f}" if method.cost.n_chains else "-",
        )
    if table.row_count:
        console.print(table)
    if result.rankings:
        table = Table(box=None, header_style="bold", title="correlation of rankings of policies")
        for name in ("method", *DOMAINS, "mean"):
            table.add_column(name, justify="left" if name == "method" else "right")
        for ranking in result.rankings:
            of_domains = (correlation(ranking.by_domain.get(domain)) for domain in DOMAINS)
            table.add_row(ranking.label, *of_domains, correlation(ranking.mean))
        console.print(table)
    if result.best_baseline:
        console.print(f"best baseline: {result.best_baseline}", markup=False, highlight=False)


bench_app.command("methods")(methods_command)
bench_app.command("compare")(compare_command)
bench_app.command("grade")(grade_command)
