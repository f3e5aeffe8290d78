"""PersonalRewardBench: what reaches a model, what does not, and who may learn from what."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgenrm.data import Dataset, load
from pgenrm.data.hub import open_repository
from pgenrm.data.pairs import PairRow, Placed, pairs_dataset, read_pairs
from pgenrm.errors import RowError
from pgenrm.types import Comparison, Message, Preference, User
from tests import hub_fixture
from tests.rewrite_hub_fixture import HUB, write_repository

REPOSITORIES = {
    "arena": "MichaelR207/chatbot_arena_personalized_0125",
    "prism": "MichaelR207/prism_personalized_0125",
}
SHOWN = {"conversation_id", "user_id", "context", "chosen", "rejected", "split"}


@pytest.fixture(scope="module", params=["arena", "prism"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def dataset(name: str) -> Dataset:
    return load(name, folder=HUB)


@pytest.fixture(scope="module")
def prism() -> Dataset:
    return load("prism", folder=HUB)


def rows_by_id(name: str) -> dict[str, Placed]:
    rows = read_pairs(open_repository(REPOSITORIES[name], folder=HUB))
    return {f"{name}-{item.hub_split}-{item.index}": item for item in rows}


def comparisons(dataset: Dataset) -> list[Comparison]:
    return [c for split in dataset.splits.values() for c in split]


def of_user(dataset: Dataset, user_id: str) -> list[Comparison]:
    return [c for c in comparisons(dataset) if c.user.id == user_id]


def choice(context: Sequence[Message], texts: Sequence[str]) -> tuple[Any, ...]:
    return (tuple(context), frozenset(texts))


def test_the_fixtures_have_the_37_columns_of_the_hub(name: str) -> None:
    rows: Mapping[str, Any] = getattr(hub_fixture, name)()
    columns = {column for found in rows.values() for row in found for column in row}
    assert len(columns) == 37
    assert sum(c.startswith(("prediction_", "reasoning_")) for c in columns) == 20


def test_columns_of_judges_and_filters_and_flip_are_never_read(name: str, dataset: Dataset) -> None:
    assert set(PairRow.model_fields) == SHOWN | {"chosen_score", "rejected_score"}
    for comparison in comparisons(dataset):
        text = comparison.model_dump_json()
        assert hub_fixture.SECRET not in text
        assert not any(f'"{word}' in text for word in ("prediction", "agreement", "flip", "split"))


def test_users_and_their_own_rows_are_split_crosswise(dataset: Dataset) -> None:
    users = {split: {c.user.id for c in found} for split, found in dataset.splits.items()}
    assert users == {
        "train": {"user1", "user2", "user3"},
        "validation": {"user1", "user2", "user3", "user4", "user5"},
        "test_seen": {"user1", "user2", "user3"},
        "test_unseen": {"user6", "user7", "user8"},
    }


def test_every_comparison_comes_from_the_part_of_its_split(name: str, dataset: Dataset) -> None:
    rows = rows_by_id(name)
    parts = {
        split: {rows[c.id].row.split for c in found} for split, found in dataset.splits.items()
    }
    assert parts == {
        "train": {"train"},
        "validation": {"val", "test"},
        "test_seen": {"test"},
        "test_unseen": {"test"},
    }


def test_history_is_the_users_own_train_rows_of_other_conversations(
    name: str, dataset: Dataset
) -> None:
    rows = rows_by_id(name)
    n_pairs = 0
    for comparison in comparisons(dataset):
        own = rows[comparison.id].row
        for pair in comparison.user.history:
            n_pairs += 1
            sources = [
                item.row
                for item in rows.values()
                if choice(item.row.context, (item.row.chosen, item.row.rejected))
                == choice(pair.context, (pair.chosen, pair.rejected))
            ]
            assert {row.user_id for row in sources} == {own.user_id}
            assert {row.split for row in sources} == {"train"}
            assert own.conversation_id not in {row.conversation_id for row in sources}
    assert n_pairs > 100


def test_no_choice_of_a_test_is_learnt_from_or_in_anybodys_history(dataset: Dataset) -> None:
    tested = {
        choice(c.context, c.responses)
        for split in ("test_seen", "test_unseen")
        for c in dataset.splits[split]
    }
    for split in ("train", "validation"):
        for c in dataset.splits[split]:
            assert choice(c.context, c.responses) not in tested
    for c in comparisons(dataset):
        for pair in c.user.history:
            assert choice(pair.context, (pair.chosen, pair.rejected)) not in tested


def test_what_a_method_adapts_to_holds_no_choice_of_a_test(dataset: Dataset) -> None:
    users = dataset.users("test_unseen")
    assert [u.id for u in users] == ["user6", "user7", "user8"]
    by_user = {u.id: [c for c in comparisons(dataset) if c.user.id == u.id] for u in users}
    for user in users:
        tested = {choice(c.context, c.responses) for c in by_user[user.id]}
        shown = {choice(p.context, (p.chosen, p.rejected)) for p in user.history}
        assert shown
        assert not shown & tested


def test_the_label_names_the_chosen_response(name: str, dataset: Dataset) -> None:
    rows = rows_by_id(name)
    for c in comparisons(dataset):
        assert c.label is not None
        assert c.responses[c.label] == rows[c.id].row.chosen
    assert {c.label for c in comparisons(dataset)} == {0, 1}


def test_roles_and_lists_of_one_change_nothing(tmp_path: Path) -> None:
    loaded = []
    for as_list, role in ((True, "assistant"), (False, "model")):
        path = tmp_path / role / "chatbot_arena_personalized_0125"
        splits = hub_fixture.pair_rows("chatbot_arena", as_list=as_list, assistant=role)
        write_repository(path, {"default": splits}, "parquet")
        loaded.append(load("arena", folder=tmp_path / role))
    assert loaded[0].splits == loaded[1].splits
    assert loaded[0].revision != loaded[1].revision


def test_a_conversation_that_goes_on_in_a_test_is_not_learnt_from(prism: Dataset) -> None:
    late = next(c for c in prism.splits["test_unseen"] if c.id == "prism-test-27")
    opening = late.context[0].content
    assert len(late.context) == 3
    for c in of_user(prism, "user6"):
        assert all(pair.context[0].content != opening for pair in c.user.history)
    assert any("2 train rows share a conversation or a choice" in note for note in prism.notes)


def test_a_choice_that_stands_in_a_test_as_well_is_not_learnt_from(prism: Dataset) -> None:
    again = rows_by_id("prism")["prism-test-28"].row
    assert (again.user_id, again.split) == ("user7", "train")
    for c in of_user(prism, "user7"):
        for pair in c.user.history:
            assert choice(pair.context, (pair.chosen, pair.rejected)) != choice(
                again.context, (again.chosen, again.rejected)
            )


def test_choice_attributes_come_from_the_pairs_own_and_never_the_comparisons_conversation(
    prism: Dataset,
) -> None:
    rows = rows_by_id("prism")
    seen = set()
    for c in comparisons(prism):
        for pair in c.user.history:
            if pair.choice_attributes:
                number = pair.choice_attributes["creativity"]
                assert f"c{number:g}" != rows[c.id].row.conversation_id
                assert pair.choice_attributes["values"] is None
                seen.add(number)
    assert {10, 20, 32, 62} <= seen


def test_ratings_are_shown_with_past_choices_of_prism_but_not_of_arena(prism: Dataset) -> None:
    assert any(p.chosen_score == 81 for c in comparisons(prism) for p in c.user.history)
    arena = load("arena", folder=HUB)
    for c in comparisons(arena):
        assert all(p.chosen_score is p.rejected_score is None for p in c.user.history)


def test_what_users_state_is_joined_from_the_survey(prism: Dataset) -> None:
    user = of_user(prism, "user1")[0].user
    assert user.criteria == (
        "You should go into detail and stay polite.",
        "How much each of these matters to me, from 0 to 100: values 41, creativity 41, "
        "fluency 41, factuality 41, diversity 41, safety 41, personalisation 90, helpfulness 88, "
        "honest doubt 70",
    )
    assert user.self_description == "I run a small shop, number 1."
    assert user.demographics == {
        "age": "25-34 years old",
        "gender": "Female",
        "employment status": "Working full-time",
        "education": "Vocational",
        "marital status": "Never been married",
        "study locale": "uk",
        "religion": "No affiliation",
        "ethnicity": "White",
    }


def test_what_is_not_said_is_absent(prism: Dataset) -> None:
    silent = of_user(prism, "user2")[0].user
    assert (silent.criteria, silent.self_description) == ((), None)
    assert "marital status" not in of_user(prism, "user3")[0].user.demographics
    unknown = of_user(prism, "user8")[0].user
    assert (unknown.criteria, unknown.self_description, unknown.demographics) == ((), None, {})
    assert "1 of 8 users have no survey row: nothing stated" in prism.notes
    assert any(note.startswith("1 of 49 conversations have no") for note in prism.notes)


def test_another_name_of_the_categorised_field_is_read_too(tmp_path: Path) -> None:
    rows = hub_fixture.survey()
    for row in rows:
        row["religion"] = {"self_described": "x", "gpt4_categorised": "Hindu"}
    for repository in ("prism_personalized_0125", "prism-alignment"):
        (tmp_path / repository).symlink_to(HUB / repository)
    (tmp_path / "prism-alignment").unlink()
    configs = {
        "survey": {"train": rows},
        "conversations": {"train": hub_fixture.conversations()},
    }
    write_repository(tmp_path / "prism-alignment", configs, "jsonl")
    user = of_user(load("prism", folder=tmp_path), "user1")[0].user
    assert user.demographics["religion"] == "Hindu"


def test_equal_texts_are_neither_trained_on_nor_shown(prism: Dataset) -> None:
    row = rows_by_id("prism")["prism-train-3"].row
    assert row.chosen == row.rejected
    assert "prism-train-3" not in {c.id for c in comparisons(prism)}
    assert all(p.is_informative for c in comparisons(prism) for p in c.user.history)


def test_equal_texts_of_a_test_are_kept_and_counted(prism: Dataset) -> None:
    same = [c.id for c in comparisons(prism) if len(set(c.responses)) == 1]
    assert same == ["prism-test-7"]
    assert any(note.startswith("1 validation and test rows whose two") for note in prism.notes)


def test_the_mark_of_a_missing_text_is_read_as_no_text(prism: Dataset) -> None:
    assert rows_by_id("prism")["prism-test-6"].row.rejected == ""
    assert "EMPTY STRING" not in "".join(c.model_dump_json() for c in comparisons(prism))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a text is missing": ({"chosen": None}, r"'chosen' must be a text, found null"),
    "a part has another name": ({"split": "dev"}, r"'split' is \"dev\"; use 'train', 'val' or"),
    "a conversation ends with the model": (
        {"context": [{"role": "model", "content": "Hi"}]},
        r"'context' the last message must be the user's",
    ),
    "a role is unknown": (
        {"context": [{"role": "critic", "content": "Hi"}]},
        r"'context.0.role' is \"critic\"",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named_with_its_column_and_row(case: str, tmp_path: Path) -> None:
    change, message = WRONG[case]
    splits = hub_fixture.arena()
    splits["validation"][5] |= change
    write_repository(tmp_path / "chatbot_arena_personalized_0125", {"default": splits}, "parquet")
    place = r"chatbot_arena_personalized_0125/validation\[5\]: "
    with pytest.raises(RowError, match=place + message):
        load("arena", folder=tmp_path)


@pytest.mark.parametrize("column", sorted(PairRow.model_fields))
def test_a_missing_column_is_named_with_the_columns_that_there_are(
    column: str, tmp_path: Path
) -> None:
    splits = {"train": [dict(row) for row in hub_fixture.arena()["train"]]}
    for row in splits["train"]:
        del row[column]
    write_repository(tmp_path / "chatbot_arena_personalized_0125", {"default": splits}, "jsonl")
    message = rf"/train\[0\]: '{column}' is missing; add it; the columns are .*turns"
    with pytest.raises(RowError, match=message):
        load("arena", folder=tmp_path)


hub_splits = st.sampled_from(["train", "validation", "test"])
row_cells = st.tuples(
    hub_splits,
    st.sampled_from(["ann", "bob", "cem"]),
    st.integers(0, 3),
    st.sampled_from(["train", "val", "test"]),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(0, 2),
)


@settings(max_examples=60)
@given(st.lists(row_cells, max_size=24))
def test_whatever_the_rows_no_test_is_learnt_from(cells: list[tuple[Any, ...]]) -> None:
    rows = [
        Placed(
            hub_split,
            i,
            PairRow.model_validate(
                {
                    "conversation_id": f"{user_id}-{conversation}",
                    "user_id": user_id,
                    "context": f"query {query}",
                    "chosen": f"text {chosen}",
                    "rejected": f"text {rejected}",
                    "chosen_score": None,
                    "rejected_score": None,
                    "split": part,
                }
            ),
        )
        for i, (hub_split, user_id, conversation, part, query, chosen, rejected) in enumerate(cells)
    ]
    dataset = pairs_dataset(
        "any",
        "none",
        rows,
        user_of=lambda user_id: User(id=user_id),
        past_choice=lambda row: Preference(
            context=row.context, chosen=row.chosen, rejected=row.rejected
        ),
    )
    by_id = {f"any-{item.hub_split}-{item.index}": item.row for item in rows}
    in_train = {item.row.user_id for item in rows if item.hub_split == "train"}
    for split, found in dataset.splits.items():
        assert found
        for c in found:
            own = by_id[c.id]
            assert (own.user_id in in_train) or split in ("validation", "test_unseen")
            for pair in c.user.history:
                assert not (
                    pair.context == c.context and {pair.chosen, pair.rejected} == set(c.responses)
                )
    for user_id in {c.user.id for c in comparisons(dataset)}:
        later = [row for row in by_id.values() if row.user_id == user_id and row.split != "train"]
        tested = {choice(row.context, (row.chosen, row.rejected)) for row in later}
        mine = of_user(dataset, user_id)
        shown = [p for c in mine for p in c.user.history]
        learnt = [c for c in mine if by_id[c.id].split == "train"]
        assert not {choice(p.context, (p.chosen, p.rejected)) for p in shown} & tested
        assert not {choice(c.context, c.responses) for c in learnt} & tested
        conversations = {row.conversation_id for row in later}
        assert not {by_id[c.id].conversation_id for c in learnt} & conversations


def test_rows_keep_their_number_and_order(name: str, dataset: Dataset) -> None:
    ids = [c.id for c in dataset.splits["train"]]
    assert ids == sorted(ids, key=lambda id_: int(id_.rsplit("-", 1)[1]))
    n_tests = Counter(item.row.split for item in rows_by_id(name).values())["test"]
    n_kept = sum(len(dataset.splits[s]) for s in ("test_seen", "test_unseen"))
    assert n_kept == n_tests - 6  # those of the two validation users


def test_the_revision_is_a_digest_of_the_files(tmp_path: Path) -> None:
    def revision(agreement: float) -> str:
        path = tmp_path / str(agreement)
        splits = hub_fixture.arena()
        splits["test"][0]["agreement"] = agreement
        repository = path / "chatbot_arena_personalized_0125"
        write_repository(repository, {"default": splits}, "jsonl")
        return open_repository(REPOSITORIES["arena"], folder=path).revision

    assert revision(0.5) == revision(0.5)
    assert revision(0.5) != revision(0.4)
