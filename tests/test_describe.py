"""What prototypes stand for, in numbers and words."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fitted import arrays

pytest.importorskip("sklearn", reason="needs the extra 'prototypes'")

from pgenrm.prototypes.describe import Description, describe, spread_of, telling_words


def test_rows_and_users_are_counted_by_prototype() -> None:
    fitted = replace(arrays(6, k=2), assignment_=np.array([0, 0, 0, 1, 1, 1]))
    first, second = describe(fitted).prototypes
    assert (first.n_rows, second.n_rows) == (3, 3)
    assert (first.n_users, second.n_users) == (2, 2)  # u0 u0 u1, u1 u2 u2
    assert first.share == 0.5
    assert first.scenarios == {"casual": 2, "technical": 1}
    assert list(second.scenarios) == ["technical", "casual"]


def test_macro_statistics_count_every_prototype_the_same() -> None:
    fitted = replace(arrays(6, k=3), assignment_=np.array([0, 0, 0, 0, 1, 2]))
    description = describe(fitted)
    rows = description.rows_per_prototype
    assert (rows.mean, rows.median, rows.min, rows.max) == (2, 1, 1, 4)
    assert rows.std == pytest.approx(2**0.5)
    assert description.n_users == 3
    assert [s.prototype for s in description.by_size] == [0, 1, 2]


def test_typical_members_are_the_nearest_rows_of_different_users() -> None:
    fitted = arrays(20, k=1)
    (summary,) = describe(fitted, n_typical=3).prototypes
    similarity = fitted.rows_ @ fitted.prototypes_[0]
    best = max(range(20), key=lambda i: similarity[i])
    assert summary.typical[0].text == fitted.row_texts_[best]
    assert summary.typical[0].similarity == pytest.approx(similarity[best], abs=1e-4)
    assert len({member.user_id for member in summary.typical}) == 3
    assert [m.similarity for m in summary.typical] == sorted(
        (m.similarity for m in summary.typical), reverse=True
    )


def test_a_prototype_without_members_is_described_as_empty() -> None:
    fitted = replace(arrays(6, k=3), assignment_=np.array([0, 0, 0, 1, 1, 1]))
    empty = describe(fitted).prototypes[2]
    assert (empty.n_rows, empty.n_users, empty.share) == (0, 0, 0.0)
    assert empty.scenarios == {}
    assert (empty.words, empty.typical) == ((), ())


def test_words_are_those_that_other_prototypes_lack() -> None:
    short, long, warm = (s.words for s in describe(arrays(30)).prototypes)
    assert "without code" in short
    assert "sources named" in long or "long" in long
    assert "never headings" in warm
    for words in (short, long, warm):
        assert not {"wants", "answer", "row"} & set(words)


def test_words_never_cross_punctuation_and_never_stand_on_a_qualifier_alone() -> None:
    texts = ["Short (clearly), without code."] * 5 + ["Long and thorough."] * 5
    (short, _) = telling_words(texts, np.repeat([0, 1], 5), 2, n_words=10)
    assert "without code" in short
    assert "without" not in short
    assert "clearly without" not in short


def test_a_single_prototype_has_nothing_to_be_set_apart_from() -> None:
    assert describe(arrays(10, k=1)).prototypes[0].words == ()


def test_texts_without_words_are_no_error() -> None:
    assert telling_words(["12 %", "..."], np.array([0, 1]), 2) == [(), ()]


def test_words_are_found_in_other_scripts() -> None:
    texts = ["Ответы короткие"] * 6 + ["Ответы длинные"] * 6
    short, long = telling_words(texts, np.repeat([0, 1], 6), 2)
    assert "короткие" in short[0]
    assert "длинные" in long[0]


@given(
    st.lists(st.tuples(st.text(max_size=60), st.integers(0, 3)), min_size=1, max_size=20),
    st.integers(1, 5),
)
@settings(max_examples=60)
def test_any_texts_give_at_most_the_words_asked_for(
    rows: list[tuple[str, int]], n_words: int
) -> None:
    told = telling_words([t for t, _ in rows], np.array([j for _, j in rows]), 4, n_words)
    assert len(told) == 4
    members = {j for _, j in rows}
    for j, words in enumerate(told):
        assert len(words) <= n_words
        assert j in members or not words
        for word in words:
            assert any(set(word.split()) for t, i in rows if i == j)


def test_a_description_survives_json() -> None:
    description = describe(arrays(12))
    assert Description.model_validate_json(description.model_dump_json()) == description


def test_the_spread_of_equal_values_is_zero() -> None:
    assert spread_of([4, 4, 4]).std == 0
