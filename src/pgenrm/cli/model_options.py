"""Options of commands that reach a model: declared once, as help and bounds are the same."""

from pathlib import Path
from typing import Annotated

import typer

from pgenrm.engines.protocol import StructuredOutput

MODEL = "Model"
"""Panel of the help."""

BaseUrl = Annotated[
    str | None,
    typer.Option(
        help="Address of the server, e.g. http://localhost:8000/v1; the key comes from "
        "OPENAI_API_KEY.",
        rich_help_panel=MODEL,
    ),
]
Adapter = Annotated[
    Path | None, typer.Option(help="A LoRA adapter for a local model.", rich_help_panel=MODEL)
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cuda, mps or cpu, for a local model and the embedder; default: the best.",
        rich_help_panel=MODEL,
    ),
]
ContextWindow = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and answer; default: ask.", rich_help_panel=MODEL),
]
Concurrency = Annotated[
    int,
    typer.Option(
        min=1, help="Requests under way at once, of all processes.", rich_help_panel=MODEL
    ),
]
Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds per request.", rich_help_panel=MODEL)
]
MaxRetries = Annotated[
    int,
    typer.Option(
        min=0,
        help="Repeats of a failed request, ever later; 8 wait 1 to 2 minutes in all.",
        rich_help_panel=MODEL,
    ),
]
ExtraBody = Annotated[
    str,
    typer.Option(
        help="JSON object of further fields of every call, e.g. "
        '\'{"chat_template_kwargs": {"enable_thinking": false}}\'.',
        rich_help_panel=MODEL,
    ),
]
Structured = Annotated[
    StructuredOutput,
    typer.Option(help="Constrain the JSON tail on servers that can.", rich_help_panel=MODEL),
]
