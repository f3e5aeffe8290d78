import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pgenrm.types import (
    Arithmetic,
    Comparison,
    Criterion,
    EvaluationChain,
    Judgment,
    Message,
    Preference,
    Rating,
    ScoreSource,
    User,
)
from tests import cases

CONTEXT = [{"role": "user", "content": "Hi"}]


def test_a_personal_reward_bench_row_is_read_as_it_is() -> None:
    row = {
        "conversation_id": "c3156",
        "user_id": "user584",
        "context": [
            {"role": "user", "content": "Hi", "turn": 0},
            {"role": "model", "content": "Hello", "model_name": "x"},
            {"role": "user", "content": "More"},
        ],
        "chosen": {"role": "model", "content": "good"},
        "rejected": [{"role": "model", "content": "bad"}],
        "agreement": 0.9,
        "prediction_gpt": "A",
        "split": "test",
    }
    comparison = Comparison.model_validate(row | {"id": "1"})
    assert comparison.responses == ("good", "bad")
    assert comparison.label == 0
    assert comparison.user == User(id="user584")
    assert [m.role for m in comparison.context] == ["user", "assistant", "user"]
    preference = Preference.model_validate(row)
    assert (preference.chosen, preference.rejected) == ("good", "bad")
    stored = comparison.model_dump_json() + preference.model_dump_json()
    assert "agreement" not in stored
    assert "prediction" not in stored


def test_a_trl_preference_row_is_read_as_it_is() -> None:
    row = {"id": "1", "user_id": 7, "prompt": "Hi", "chosen": "a", "rejected": "b"}
    comparison = Comparison.model_validate(row)
    assert comparison.user.id == "7"
    assert comparison.context == (Message(role="user", content="Hi"),)


def test_empty_columns_are_missing_ones() -> None:
    row = {"id": "1", "user": None, "user_id": "u", "context": None, "prompt": "Hi"}
    row |= {"responses": None, "chosen": "a", "rejected": "b", "criteria": None}
    comparison = Comparison.model_validate(row)
    assert comparison.responses == ("a", "b")
    user = {"id": "u", "history": None, "criteria": None, "demographics": None}
    assert User.model_validate(user) == User(id="u")
    assert Comparison.model_validate({**row, "responses": ["a", "b"], "label": 1.0}).label == 1


def test_user_fields_of_a_flat_row_are_kept() -> None:
    row = {
        "id": "1",
        "user_id": "u",
        "criteria": "be brief",
        "demographics": {"age": 30, "gender": None},
        "context": "Hi",
        "responses": ["a"],
    }
    user = Comparison.model_validate(row).user
    assert user.criteria == ("be brief",)
    assert user.demographics == {"age": "30"}


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"responses": []}, "responses"),
        ({"responses": ["a", None]}, "responses"),
        ({"label": 2}, "label is 2"),
        ({"label": -1}, "label is -1"),
        ({"context": []}, "context"),
        ({"context": [{"role": "tool", "content": "x"}]}, "role"),
        ({"context": [{"role": "assistant", "content": "x"}]}, "last message"),
        ({"user": {"id": ""}}, "id"),
        ({"user": {"id": "u", "histroy": []}}, "histroy"),
        ({"user": None}, "user"),
    ],
)
def test_a_wrong_comparison_is_refused(change: dict[str, object], where: str) -> None:
    good = {"id": "1", "user": {"id": "u"}, "context": CONTEXT, "responses": ["a", "b"]}
    Comparison.model_validate(good)
    with pytest.raises(ValidationError, match=where):
        Comparison.model_validate(good | change)


def test_values_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        cases.comparison().label = 1  # type: ignore[misc]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
messages = st.builds(Message, role=st.just("user"), content=texts)
preferences = st.builds(
    Preference,
    context=st.tuples(messages),
    chosen=texts,
    rejected=texts,
    chosen_score=st.none() | st.floats(0, 100),
)
users = st.builds(
    User,
    id=st.just("u"),
    history=st.lists(preferences, max_size=2).map(tuple),
    criteria=st.just(()),
)
comparisons = st.builds(
    Comparison,
    id=st.just("c"),
    user=users,
    context=st.tuples(messages),
    responses=st.lists(texts, min_size=1, max_size=4).map(tuple),
    label=st.none() | st.just(0),
)


@given(comparisons)
def test_a_comparison_survives_json(comparison: Comparison) -> None:
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    assert Comparison.model_validate(json.loads(comparison.model_dump_json())) == comparison


def test_a_judgment_survives_json() -> None:
    from pgenrm.judge import PGenRM

    judgment = PGenRM(cases.KnownEvaluator(cases.shorter_is_better)).judge_one(cases.comparison())
    assert Judgment.model_validate_json(judgment.model_dump_json()) == judgment


def rubric_chain(stated: tuple[float | None, ...]) -> EvaluationChain:
    return EvaluationChain(
        preferences="",
        criteria=(Criterion(name="a", weight=60), Criterion(name="b", weight=60)),
        ratings=((Rating(score=8), Rating(score=4)), (Rating(score=2), Rating(score=2))),
        stated_scores=stated,
    )


def test_weights_that_do_not_sum_to_100_are_normalised() -> None:
    assert rubric_chain((6, 2)).rubric_scores == (6, 2)


@pytest.mark.parametrize(
    ("stated", "arithmetic"),
    [
        ((6, 2), Arithmetic.CONSISTENT),
        ((6.05, None), Arithmetic.CONSISTENT),
        ((6.1, 2.1), Arithmetic.CONSISTENT),
        ((6.1001, 2), Arithmetic.DISAGREES),
        ((6.2, 2), Arithmetic.DISAGREES),
        ((2, 6), Arithmetic.DISAGREES),
        ((None, None), Arithmetic.UNSTATED),
    ],
)
def test_a_chain_is_marked_by_its_arithmetic(
    stated: tuple[float | None, ...], arithmetic: Arithmetic
) -> None:
    assert rubric_chain(stated).arithmetic is arithmetic


def test_which_total_counts_is_a_choice() -> None:
    chain = rubric_chain((2, 9))
    assert chain.scores() == (6, 2)
    assert chain.scores(ScoreSource.STATED) == (2, 9)
    assert rubric_chain((None, 9)).scores(ScoreSource.STATED) == (6, 9)


def test_an_incomplete_breakdown_leaves_the_stated_scores() -> None:
    chain = EvaluationChain(
        preferences="",
        criteria=(Criterion(name="a", weight=60),),
        ratings=((None,), (Rating(score=2),)),
        stated_scores=(7, 3),
    )
    assert chain.rubric_scores is None
    assert chain.arithmetic is Arithmetic.INCOMPLETE
    assert chain.scores() == (7, 3)
