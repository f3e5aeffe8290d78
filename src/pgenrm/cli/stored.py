"""Prototypes in a directory, with the embedder that they were fitted with.

Everything heavy is imported when a function runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import typer

from pgenrm.errors import InputError
from pgenrm.rows import read_values
from pgenrm.types import Value

if TYPE_CHECKING:
    from pgenrm.prototypes.store import Prototypes

EMBEDDER_FILE: Final = "embedder.json"
"""Lies in the directory and holds `EmbedderOptions`."""


EMBEDDINGS_ENDING: Final = ".embeddings.sqlite"
"""Of the file of embeddings beside the directory."""


def dtype_option(panel: str) -> Any:
    """Return the option that chooses the format of an embedder's numbers."""
    return typer.Option(
        help="Format of the embedder's numbers: bfloat16 mostly halves the time; default: float32.",
        show_default=False,
        rich_help_panel=panel,
    )


class EmbedderOptions(Value):
    """How to build the embedder that prototypes were fitted with; kept beside them."""

    model: str
    dtype: str | None = None
    max_tokens: int | None = None


class AbsentEmbedder:
    """Stands for the embedder of prototypes that are only looked at."""

    dimension = 0

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, texts: Sequence[str]) -> NoReturn:
        """Refuse."""
        raise InputError(f"the embedder {self.name} was not loaded to embed {len(texts)} texts")


def open_to_look(directory: Path) -> "Prototypes":
    """Load prototypes without their embedder.

    Raises:
        InputError: there are none, or a file is damaged.
        MissingExtraError: the extra `prototypes` is not installed.
    """
    from pgenrm.prototypes.store import Prototypes
    from pgenrm.prototypes.store_files import read_manifest

    return Prototypes.load(directory, AbsentEmbedder(read_manifest(directory).embedder))


def open_prototypes(
    directory: Path,
    embedder: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
) -> "Prototypes":
    """Load prototypes with the embedder that they were fitted with.

    Args:
        directory: as `pgenrm prototypes fit` wrote it.
        embedder: hub id, directory or `minilm`; default: the one named when fitting.
        device: for the embedder.
        cache: its file of embeddings. Judging goes without: what is written about the users who are
            judged has no place in it.

    Raises:
        InputError: there are none, a file is damaged, or the embedder is another one.
        MissingExtraError: the extra `prototypes` is not installed.
    """
    from pgenrm.prototypes.embedder import SentenceTransformerEmbedder
    from pgenrm.prototypes.store import Prototypes
    from pgenrm.prototypes.store_files import read_manifest

    read_manifest(directory)  # a wrong directory is no reason to ask for an embedder
    path = directory / EMBEDDER_FILE
    if path.exists():
        ((_, options),) = read_values(path, EmbedderOptions)
    elif embedder:
        options = EmbedderOptions(model=embedder)
    else:
        raise InputError(f"{path} is missing, so name the embedder with --embedder")
    reader = SentenceTransformerEmbedder(
        embedder or options.model,
        device=device,
        dtype=options.dtype,
        max_tokens=options.max_tokens,
        cache=cache,
    )
    return Prototypes.load(directory, reader)


def beside(directory: Path, ending: str) -> Path:
    """Name a file that lies beside a directory and belongs to it.

    >>> beside(Path("/runs/prototypes"), ".html").as_posix()
    '/runs/prototypes.html'
    """
    directory = directory.resolve()
    return directory.with_name(directory.name + ending)
