"""Pictures of prototypes and the page that holds them."""

import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.fitted import arrays

pytest.importorskip("matplotlib", reason="needs the extra 'prototypes'")
pytest.importorskip("sklearn", reason="needs the extra 'prototypes'")

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from pgenrm.prototypes.describe import describe
from pgenrm.prototypes.page import page
from pgenrm.prototypes.plots import (
    MAX_NAMED,
    MAX_ROWS_DRAWN,
    contrasting,
    drawable,
    flat,
    map_figure,
    size_figure,
    variance_figure,
)

HOSTILE = r"<script>alert(1)</script> $\frac{1 & 'x' \u202e 你好 🙂"


def drawn(figure: Figure) -> bytes:
    """Draw to the end: a missing sign or a bad formula shows only then."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=50)
    return png.getvalue()


def n_dots_of(figure: Figure) -> int:
    return sum(len(np.asarray(dots.get_offsets())) for dots in figure.axes[0].collections)


def texts_of(figure: Figure) -> list[str]:
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_the_variance_picture_says_what_k_keeps() -> None:
    figure = variance_figure(np.array([0.5, 0.75, 0.9, 1.0]), k=2)
    assert "k = 2 keeps 75.0%" in texts_of(figure)
    assert len(figure.axes) == 1
    assert drawn(figure)


def test_accuracy_at_several_k_stands_beside_the_variance_in_order_of_k() -> None:
    accuracy = [(8, 0.7, 0.65, 0.75), (2, 0.6, 0.55, 0.65), (4, 0.8, 0.7, 0.9)]
    figure = variance_figure(np.array([0.5, 0.75, 0.9, 1.0]), 4, accuracy)
    drawn(figure)
    _, right = figure.axes
    assert [t.get_text() for t in right.get_xticklabels()] == ["2", "4", "8"]
    assert right.lines[0].get_ydata().tolist() == [0.6, 0.8, 0.7]  # type: ignore[union-attr]
    assert right.lines[1].get_xdata().tolist() == [1]  # type: ignore[union-attr]


def test_more_prototypes_than_singular_vectors_can_be_drawn() -> None:
    assert drawn(variance_figure(np.array([0.6, 1.0]), k=5))


@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_the_map_shows_every_row_and_every_prototype(method: str) -> None:
    fitted = arrays(30)
    figure = map_figure(fitted, describe(fitted), method=method)  # type: ignore[arg-type]
    assert n_dots_of(figure) == 30
    assert {"0", "1", "2"} <= set(texts_of(figure))
    assert drawn(figure)


def test_the_same_seed_lays_the_map_out_alike() -> None:
    vectors = arrays(40).rows_
    assert np.array_equal(flat(vectors, "tsne", seed=1), flat(vectors, "tsne", seed=1))


@pytest.mark.parametrize("n_rows", [1, 2, 3])
@pytest.mark.parametrize("method", ["tsne", "pca"])
def test_the_smallest_maps_can_be_drawn(n_rows: int, method: str) -> None:
    fitted = arrays(n_rows, k=1)
    assert drawn(map_figure(fitted, describe(fitted), method=method))  # type: ignore[arg-type]


def test_of_very_many_rows_a_share_is_drawn_and_the_map_says_so() -> None:
    n_rows = MAX_ROWS_DRAWN + 500
    fitted = arrays(n_rows, k=3)
    figure = map_figure(fitted, describe(fitted), method="pca")
    assert n_dots_of(figure) == MAX_ROWS_DRAWN
    assert f"{MAX_ROWS_DRAWN:,} of {n_rows:,} shown" in figure.axes[0].get_xlabel()


def test_many_prototypes_are_drawn_without_numbers() -> None:
    fitted = arrays(200, k=MAX_NAMED + 1)
    description = describe(fitted)
    assert str(MAX_NAMED) not in texts_of(map_figure(fitted, description, method="pca"))
    assert str(MAX_NAMED) not in texts_of(size_figure(description))


def test_the_map_tells_of_the_prototypes_asked_for() -> None:
    fitted = arrays(30)
    description = describe(fitted)
    figure = map_figure(fitted, description, method="pca", highlight=(2, 1))
    headings = [t for t in texts_of(figure) if t.startswith("Prototype ")]
    assert headings == [
        f"Prototype {j} · {description.prototypes[j].n_users} users" for j in (2, 1)
    ]


def test_contrasting_prototypes_are_large_and_unlike() -> None:
    fitted = arrays(12, k=4)
    prototypes = np.array([[1, 0], [0.9, 0.1], [-1, 0], [-1, 0]], np.float32)
    assignment = np.array([0] * 5 + [1] * 4 + [2] * 3)  # 3 has no member
    sized = replace(fitted, assignment_=assignment)
    assert contrasting(prototypes, describe(sized)) == (0, 1)  # 2 is in the smaller half
    assignment = np.array([0] * 5 + [2] * 4 + [1] * 3)
    assert contrasting(prototypes, describe(replace(fitted, assignment_=assignment))) == (0, 2)
    alone = replace(fitted, assignment_=np.zeros(12, np.int64))
    assert contrasting(prototypes, describe(alone)) == (0,)


def test_hostile_texts_are_drawn_as_they_stand() -> None:
    fitted = arrays(12, texts=[HOSTILE])
    figure = map_figure(fitted, describe(fitted), method="pca")
    assert drawn(figure)
    assert any("<script>" in text for text in texts_of(figure))


def test_signs_that_the_font_lacks_become_squares() -> None:
    assert drawable("ok 你 \n") == "ok □ \n"


def test_sizes_are_drawn_largest_first_with_mean_and_median() -> None:
    fitted = replace(arrays(6, k=3), assignment_=np.array([1, 1, 1, 1, 2, 0]))
    figure = size_figure(describe(fitted))
    drawn(figure)
    (axes,) = figure.axes
    assert [t.get_text() for t in axes.get_xticklabels()] == ["1", "0", "2"]
    heights = [patch.get_height() for patch in axes.patches[:3]]  # type: ignore[attr-defined]
    assert heights == [4, 1, 1]
    assert {"mean 2 ± 1", "median 1"} <= set(texts_of(figure))


def test_accuracy_stands_below_its_prototype_where_it_is_known() -> None:
    fitted = replace(arrays(6, k=3), assignment_=np.array([1, 1, 1, 1, 2, 2]))
    figure = size_figure(describe(fitted), [(2, 0.6, 0.5, 0.7), (1, 0.8, 0.7, 0.9)])
    drawn(figure)
    below = figure.axes[1]
    points = below.lines[0]
    assert points.get_xdata().tolist() == [1, 0]  # type: ignore[union-attr]
    assert points.get_ydata().tolist() == [0.6, 0.8]  # type: ignore[union-attr]
    assert "mean 70.0% ± 10.0%" in texts_of(figure)


@pytest.fixture
def odd_settings() -> Iterator[None]:
    with matplotlib.rc_context({"axes.grid": False, "font.size": 30.0, "text.color": "red"}):
        yield


def test_pictures_leave_the_settings_of_matplotlib_alone(odd_settings: None) -> None:
    before = dict(matplotlib.rcParams)
    figure = variance_figure(np.array([0.5, 1.0]), k=1)
    assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].title.get_fontsize() == 11


# ---------------------------------------------------------------- the page


class Tags(HTMLParser):
    """Collects tags, addresses and plain text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_holds_all_pictures_and_prototypes() -> None:
    fitted = arrays(30)
    html = page(fitted, describe(fitted), embedder="hash", method="pca")
    tags = Tags(html)
    assert tags.tags.count("img") == 3
    assert all(a.startswith("data:image/svg+xml;base64,") for a in tags.addresses)
    assert re.findall(r'id="prototype-(\d+)"', html) == ["0", "1", "2"]
    assert "Embedded with hash." in tags.text


def test_texts_on_the_page_are_escaped() -> None:
    fitted = arrays(12, texts=[HOSTILE])
    tags = Tags(page(fitted, describe(fitted), method="pca", embedder="<b>"))
    assert "script" not in tags.tags
    assert "b" not in tags.tags
    assert "<script>alert(1)</script>" in tags.text


def test_the_same_prototypes_give_the_same_page() -> None:
    fitted = arrays(20)
    pages = {page(fitted, describe(fitted), method="pca") for _ in range(2)}
    assert len(pages) == 1


def test_an_empty_prototype_is_shown_as_such() -> None:
    fitted = replace(arrays(6, k=3), assignment_=np.array([0, 0, 0, 1, 1, 1]))
    assert "no member" in Tags(page(fitted, describe(fitted), method="pca")).text
