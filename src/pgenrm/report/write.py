"""All forms of a report, written beside the records."""

from pathlib import Path
from typing import Final

from pgenrm.bench.metrics import evaluate
from pgenrm.bench.plan import read_commands
from pgenrm.report.card import card_fragment, eval_results, method_of_card
from pgenrm.report.csv_file import csv_table
from pgenrm.report.page import page
from pgenrm.report.samples import samples
from pgenrm.report.tables import markdown

PAGE: Final = "report.html"
CSV: Final = "results.csv"
JSON: Final = "results.json"
MARKDOWN: Final = "results.md"
CARD: Final = "model-card.md"
EVAL_RESULTS: Final = "eval_results.yaml"


def write_report(
    bench: Path,
    out: Path | None = None,
    *,
    n_samples: int = 3,
    card_of: str | None = None,
    model: str | None = None,
    seed: int = 0,
) -> list[Path]:
    """Write the report of a bench.

    Args:
        bench: its directory.
        out: where to; None writes beside the records.
        n_samples: judgments shown of every outcome and method, but those with altered users.
        card_of: method of the model card; None takes one of P-GenRM, see `method_of_card`, and
            writes no card where there is none.
        model: name of the model on the hub, for the card.
        seed: of the resampling of users.

    Returns:
        The files, the page first.

    Raises:
        InputError: there is no bench, or no record in it.
        MissingExtraError: a card is to be written and huggingface_hub is not installed.
    """
    result, commands = evaluate(bench, seed), read_commands(bench)
    contents = {
        PAGE: page(result, commands, samples(bench, n_samples)),
        CSV: csv_table(result),
        JSON: result.model_dump_json(indent=2) + "\n",
        MARKDOWN: markdown(result, commands),
    }
    if method := method_of_card(result, card_of):
        contents[CARD] = card_fragment(result, method, model)
        contents[EVAL_RESULTS] = eval_results(result, method, commands[-1].started_at[:10])
    out = out or bench
    out.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (out / name).write_text(content, "utf-8")
    return [out / name for name in contents]
