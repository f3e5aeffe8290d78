"""One HTML page about fitted prototypes: pictures and table, nothing to load from elsewhere.

Every text of a user or a model is escaped; pictures are embedded as SVG.
"""

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import jinja2

from pgenrm.prototypes.describe import Description, Fitted
from pgenrm.prototypes.plots import (
    AccuracyAt,
    Method,
    map_figure,
    size_figure,
    svg_of,
    variance_figure,
)


class Picture(NamedTuple):
    """A figure with the words below it."""

    source: str
    """A data address."""
    caption: str


def page(
    fitted: Fitted,
    description: Description,
    *,
    title: str = "User prototypes",
    embedder: str = "",
    method: Method = "tsne",
    seed: int = 0,
    accuracy_by_k: Sequence[AccuracyAt] = (),
    accuracy_by_prototype: Sequence[AccuracyAt] = (),
) -> str:
    """Write the page as HTML.

    Args:
        fitted: what is shown.
        description: of the same prototypes.
        title: of the page.
        embedder: name of the embedding model.
        method: how the map is laid out.
        seed: of the map.
        accuracy_by_k: (number of prototypes, accuracy, low, high).
        accuracy_by_prototype: (prototype, accuracy, low, high).
    """
    k = len(fitted.prototypes_)
    pictures = [
        Picture(
            _address(svg_of(variance_figure(fitted.spectrum_, k, accuracy_by_k))),
            "Share of the variance of all analyses that the first singular vectors keep"
            + (", beside the accuracy for other numbers of prototypes." if accuracy_by_k else "."),
        ),
        Picture(
            _address(svg_of(map_figure(fitted, description, method=method, seed=seed))),
            "Users and prototypes in two dimensions, with the words and a typical preference text "
            "of two contrasting prototypes. Near dots are similar users.",
        ),
        Picture(
            _address(svg_of(size_figure(description, accuracy_by_prototype))),
            "Members of every prototype"
            + (", and the accuracy for them" if accuracy_by_prototype else "")
            + ". Lines and band: mean, median and standard deviation of the rows"
            + (" and of the accuracies." if accuracy_by_prototype else "."),
        ),
    ]
    source = files("pgenrm.prototypes").joinpath("page.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(
        title=title,
        embedder=embedder,
        pictures=pictures,
        description=description,
        most_rows=max(s.n_rows for s in description.prototypes),
    )


def _address(svg: bytes) -> str:
    """Return a picture as a data address."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode("ascii")
