"""What holds of every data set, own comparisons, simulated users, and users with posts."""

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgenrm.data import Dataset, draw, load, load_lampqa, world_dataset
from pgenrm.data.checks import history_check
from pgenrm.data.dataset import in_neutral_order
from pgenrm.data.posts import HEADING
from pgenrm.errors import InputError, RowError
from pgenrm.sim import World, WorldConfig, oracle, simulate
from pgenrm.types import Comparison, Message, User
from tests import cases, hub_fixture
from tests.rewrite_hub_fixture import HUB

SMALL = WorldConfig(n_train=5, n_validation=1, n_test=2, n_history=3)


def comparisons(dataset: Dataset) -> list[Comparison]:
    return [c for split in dataset.splits.values() for c in split]


# ---------------------------------------------------------------- every data set


def test_a_test_user_who_is_learnt_from_is_an_error() -> None:
    with pytest.raises(InputError, match="user 'u0' is in test_unseen and in train"):
        Dataset(
            "x",
            "1",
            {"validation": [cases.comparison("a")], "test_unseen": [cases.comparison("b")]},
        )


def test_an_id_that_is_used_twice_is_an_error() -> None:
    with pytest.raises(InputError, match="id 'a' is used twice"):
        Dataset("x", "1", {"train": [cases.comparison("a")], "test_seen": [cases.comparison("a")]})


@given(st.text(min_size=1).filter(str.strip), st.text(), st.text())
def test_which_response_was_chosen_moves_none(id_: str, chosen: str, rejected: str) -> None:
    one = in_neutral_order(cases.comparison(id_, (chosen, rejected), 0))
    other = in_neutral_order(cases.comparison(id_, (rejected, chosen), 0))
    assert one.responses == other.responses
    assert one.label is not None
    assert one.responses[one.label] == chosen
    assert in_neutral_order(one) == one


def test_the_chosen_response_stands_first_about_half_of_the_time() -> None:
    labels = Counter(in_neutral_order(cases.comparison(str(i))).label for i in range(1000))
    assert 440 < labels[0] < 560


def test_a_limit_draws_tests_only_and_larger_draws_hold_smaller_ones() -> None:
    dataset = world_dataset("x", World(SMALL), 20)
    drawn = {n: dataset.limited(n, seed=1) for n in (3, 6)}
    for split in ("test_seen", "test_unseen"):
        ids = {n: [c.id for c in d.splits[split]] for n, d in drawn.items()}
        assert len(ids[3]) == 3
        assert set(ids[3]) < set(ids[6])
        whole = [c.id for c in dataset.splits[split]]
        assert ids[6] == sorted(ids[6], key=whole.index)
    assert drawn[3].splits["train"] == dataset.splits["train"]
    other = dataset.limited(3, seed=2).splits["test_seen"]
    assert other != drawn[3].splits["test_seen"]


def test_nothing_can_be_drawn_with_a_limit_of_none() -> None:
    with pytest.raises(InputError, match="at least 1"):
        draw([cases.comparison()], 0)


def test_tests_alone_can_learn_from_another_data_set() -> None:
    tests, other = load("prbench", folder=HUB), load("prism", folder=HUB)
    both = tests.fitted_on(other)
    assert list(both.splits) == ["train", "validation", "test_unseen"]
    assert both.splits["test_unseen"] == tests.splits["test_unseen"]
    assert both.splits["train"] == other.splits["train"]
    assert both.splits["validation"] == other.splits["validation"]
    assert both.revision == f"{tests.revision},{other.revision}"
    assert "methods learn from another data set, prism: 11 train and 16 validation" in both.notes[0]
    assert f"prism: {other.notes[0]}" in both.notes


def test_what_cannot_be_learnt_from_another_data_set_is_refused() -> None:
    prism, arena = load("prism", folder=HUB), load("arena", folder=HUB)
    tests = load("prbench", folder=HUB)
    with pytest.raises(InputError, match="prism has comparisons to learn from itself"):
        prism.fitted_on(arena)
    with pytest.raises(InputError, match="prbench has no train split"):
        load("lampqa", folder=HUB).fitted_on(tests)
    of_arena = Dataset("x", "1", {"test_unseen": arena.splits["train"]})
    with pytest.raises(InputError, match="'user1' is in test_unseen and in train"):
        of_arena.fitted_on(prism)


def test_an_unknown_name_is_an_error_that_lists_the_names() -> None:
    with pytest.raises(InputError, match=r"prizm is neither a file nor one of arena, prism"):
        load("prizm")


def test_a_revision_of_what_has_none_is_an_error() -> None:
    with pytest.raises(InputError, match="for data sets of the hub"):
        load("sim", revision="main")


# ---------------------------------------------------------------- simulated users


def test_a_made_world_holds_what_the_world_yields() -> None:
    dataset = world_dataset("sim", World(SMALL, seed=3), 12)
    world = World(SMALL, seed=3)
    for split, found in dataset.splits.items():
        assert list(found) == list(world.comparisons(split, len(found)))
    assert {split: len(found) for split, found in dataset.splits.items()} == {
        "train": 45,
        "validation": 9,
        "test_seen": 18,
        "test_unseen": 6,
    }
    assert dataset.truth is not None
    assert oracle(dataset.splits["test_unseen"], dataset.truth).accuracy.n == 6
    assert "seed 3, 12 users" in dataset.revision


def test_a_limit_makes_a_world_no_larger_than_it_needs() -> None:
    dataset = load("sim", limit=8, seed=1)
    assert len(dataset.splits["test_seen"]) == len(dataset.splits["test_unseen"]) == 8
    assert dataset.revision.endswith("seed 1, 8 users")
    trained = {c.user.id for c in dataset.splits["train"]}
    assert {c.user.id for c in dataset.splits["test_seen"]} <= trained


def test_a_world_on_disk_is_the_world_that_was_made(tmp_path: Path) -> None:
    simulate(tmp_path, 12, seed=3, config=SMALL)
    stored = load("sim", folder=tmp_path)
    made = world_dataset("sim", World(SMALL, seed=3), 12)
    assert (stored.splits, stored.revision) == (made.splits, made.revision)
    assert load(str(tmp_path)).splits == stored.splits
    assert stored.truth is not None
    assert oracle(stored.splits["test_seen"], stored.truth) == oracle(
        made.splits["test_seen"], World(SMALL, seed=3)
    )


def test_a_world_of_another_version_is_an_error(tmp_path: Path) -> None:
    simulate(tmp_path, 4, config=SMALL)
    card = json.loads((tmp_path / "card.json").read_text("utf-8"))
    (tmp_path / "card.json").write_text(json.dumps(card | {"source": "simulated texts 00000000"}))
    with pytest.raises(InputError, match="simulate it again"):
        load("sim", folder=tmp_path)


def test_simulated_users_choose_between_given_responses(tmp_path: Path) -> None:
    path = tmp_path / "given.jsonl.gz"
    texts = ("Water it.", "# Care\n\n- Water it.\n- Feed it.", "It might depend, dear friend! " * 9)
    rows = [
        {"instruction": f"How do I care for plant {i}?", "responses": [f"{t} {i}" for t in texts]}
        for i in range(40)
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    dataset = load("sim-real", folder=path, limit=4)
    assert dataset.truth is not None
    assert dataset.revision.startswith("given responses ")
    given = {text for row in rows for text in row["responses"]}
    assert all(set(c.responses) <= given for c in comparisons(dataset))


def test_given_responses_need_a_file() -> None:
    with pytest.raises(InputError, match="sim-real needs a file of responses"):
        load("sim-real")


# ---------------------------------------------------------------- own comparisons


def row(id_: str, user_id: str, history: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    return {
        "id": id_,
        "user": {"id": user_id, "history": list(history)},
        "context": f"Question {id_}?",
        "chosen": f"Good {id_}.",
        "rejected": f"Bad {id_}.",
    }


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_a_file_is_tested_on(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.jsonl", [row(str(i), f"u{i % 3}") for i in range(40)])
    dataset = load(str(path))
    (split,) = dataset.splits
    assert split == "test_unseen"
    assert dataset.revision.startswith("mine.jsonl@files:")
    assert {c.label for c in comparisons(dataset)} == {0, 1}
    for c in comparisons(dataset):
        assert c.label is not None
        assert c.responses[c.label] == f"Good {c.id}."


def test_a_directory_is_read_by_split_and_its_test_users_are_sorted(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [row("a", "ann"), row("b", "bob")])
    written(tmp_path / "validation.ndjson", [row("c", "cem")])
    written(tmp_path / "test.jsonl", [row("d", "ann"), row("e", "dee"), row("f", "cem")])
    (tmp_path / "notes.txt").write_text("not read")
    dataset = load(str(tmp_path))
    assert {split: [c.id for c in found] for split, found in dataset.splits.items()} == {
        "train": ["a", "b"],
        "validation": ["c"],
        "test_seen": ["d", "f"],
        "test_unseen": ["e"],
    }


def test_a_past_choice_that_tells_the_answer_is_left_out(tmp_path: Path) -> None:
    own = {"context": "Question a?", "chosen": "Good a.", "rejected": "Bad a."}
    turned = {"context": "Question a?", "chosen": "Bad a.", "rejected": "Good a."}
    against_another = {"context": "Question a?", "chosen": "Good a.", "rejected": "Worse."}
    later_turn = [
        {"role": "user", "content": "Question a?"},
        {"role": "assistant", "content": "Good a."},
        {"role": "user", "content": "And then?"},
    ]
    later = {"context": later_turn, "chosen": "So.", "rejected": "Or so."}
    other = {"context": "Another?", "chosen": "Good a.", "rejected": "Bad a."}
    leaks: list[Mapping[str, Any]] = [own, turned, against_another, later]
    path = written(tmp_path / "mine.jsonl", [row("a", "ann", [*leaks, other])])
    dataset = load(str(path))
    ((comparison,),) = dataset.splits.values()
    assert [p.context[0].content for p in comparison.user.history] == ["Another?"]
    assert dataset.notes == (
        "4 past choices in the context of their comparison or of a tested one: left out",
    )


def test_a_check_finds_past_choices_that_tell_the_answer() -> None:
    one = cases.comparison("a")
    answered = Message(role="assistant", content="Short answer.")
    later = (*one.context, answered, Message(role="user", content="And then?"))
    earlier = (Message(role="user", content="How?"),)
    found = [
        history_check([one.model_copy(update={"user": user})]).found
        for context in (one.context, later, earlier)
        for user in [
            User(id="u", history=(cases.preference().model_copy(update={"context": context}),))
        ]
    ]
    assert found == [1, 1, 0]


def test_what_is_tested_is_neither_learnt_from_nor_shown(tmp_path: Path) -> None:
    past = {"context": "Question b?", "chosen": "Good b.", "rejected": "Bad b."}
    again = row("b", "ann") | {"id": "b2", "rejected": "Worse."}
    of_another = row("b", "bob") | {"id": "b3"}
    written(tmp_path / "train.jsonl", [row("a", "ann", [past]), again, of_another])
    written(tmp_path / "validation.jsonl", [row("d", "ann", [past])])
    written(tmp_path / "test.jsonl", [row("b", "ann"), row("c", "ann", [past])])
    dataset = load(str(tmp_path))
    assert [c.id for c in dataset.splits["train"]] == ["a", "b3"]
    assert all(not c.user.history for c in comparisons(dataset))
    assert len(dataset.notes) == 2


def test_a_comparison_without_a_label_is_named(tmp_path: Path) -> None:
    unlabelled = {"id": "b", "user_id": "u", "context": "?", "responses": ["x", "y"]}
    path = written(tmp_path / "mine.jsonl", [row("a", "u"), unlabelled])
    with pytest.raises(RowError, match=r"mine.jsonl:2: comparison 'b' has no label"):
        load(str(path))


def test_a_bad_row_is_named_with_its_line(tmp_path: Path) -> None:
    bad = row("b", "u")
    del bad["context"]
    path = written(tmp_path / "mine.jsonl", [row("a", "u"), bad])
    with pytest.raises(RowError, match=r"mine.jsonl:2: 'context' is missing"):
        load(str(path))


def test_a_directory_without_files_of_splits_says_their_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl, validation\.jsonl"):
        load(str(tmp_path))


# ---------------------------------------------------------------- users with posts


def test_an_asker_is_shown_with_three_posts_of_his_own() -> None:
    dataset = load("prbench", folder=HUB)
    (found,) = dataset.splits.values()
    assert len(found) == 9
    with_posts = [c.user.self_description for c in found if c.user.self_description]
    assert len(with_posts) == 6
    for c in found:
        posts = (c.user.self_description or "").split("\n\n")
        id_ = c.id.rsplit("-", 1)[1]
        assert all(f"post {id_}_" in post for post in posts[1:])
        assert posts[0] in ("", HEADING)
    assert {len(text.split("\n\n")) for text in with_posts} == {1 + 3}


def test_the_seed_draws_the_posts() -> None:
    shown = [
        [c.user.self_description for c in load("prbench", folder=HUB, seed=s).splits["test_unseen"]]
        for s in (0, 0, 1)
    ]
    assert shown[0] == shown[1] != shown[2]


@pytest.mark.parametrize("name", ["prbench", "lampqa"])
def test_rubric_and_narrative_reach_no_judge(name: str) -> None:
    for c in comparisons(load(name, folder=HUB)):
        assert hub_fixture.SECRET not in c.model_dump_json()


def test_the_chosen_answer_of_reward_bench_is_labelled() -> None:
    for c in comparisons(load("prbench", folder=HUB)):
        assert c.label is not None
        assert "In short: yes" in c.responses[c.label]


def test_answers_of_lampqa_stay_with_their_models_and_scores() -> None:
    lampqa = load_lampqa(HUB)
    given = {(row["id"], row["model"]): row for row in hub_fixture.candidates()}
    assert len(lampqa.items) == 8
    assert {item.domain for item in lampqa.items} == set(hub_fixture.DOMAINS)
    for item in lampqa.items:
        assert set(item.models) == set(hub_fixture.MODELS)
        assert item.comparison.label is None
        answers = zip(item.models, item.comparison.responses, item.scores, strict=True)
        for model, response, scores in answers:
            answer = given[(item.rubric.id, model)]
            assert (response, dict(scores)) == (answer["response"], answer["scores"])
        assert hub_fixture.SECRET in item.rubric.narrative
    assert len({item.models for item in lampqa.items}) > 1
    assert lampqa.notes == ("1 questions have no answers: left out",)


def test_lampqa_is_loaded_as_any_other_data_set() -> None:
    dataset = load("lampqa", folder=HUB, limit=3)
    assert [len(c.responses) for c in dataset.splits["test_unseen"]] == [6, 6, 6]
    assert "LaMP-QA@files:" in dataset.revision
    assert "lampqa-candidates.jsonl@files:" in dataset.revision


WRONG_ANSWERS = {
    "'id' '9_9_9' is no question": {"id": "9_9_9", "model": "m", "response": "x"},
    "'model' 'policy-a' has answered '0_2_0' already": {
        "id": "0_2_0",
        "model": "policy-a",
        "response": "x",
    },
    "'response' is missing": {"id": "0_2_0", "model": "m"},
}


@pytest.mark.parametrize("message", WRONG_ANSWERS)
def test_a_wrong_answer_is_named_with_its_line(message: str, tmp_path: Path) -> None:
    rows = [*hub_fixture.candidates()[:2], WRONG_ANSWERS[message]]
    path = written(tmp_path / "answers.jsonl", rows)
    with pytest.raises(RowError, match=rf"answers.jsonl:3: {message}"):
        load_lampqa(HUB, candidates=path)


def test_lampqa_without_answers_says_what_to_give() -> None:
    with pytest.raises(InputError, match="questions but no answers; give a file"):
        load("lampqa")


def test_an_unknown_split_of_lampqa_is_an_error() -> None:
    with pytest.raises(InputError, match="no split 'dev'; use one of train, validation, test"):
        load_lampqa(HUB, split="dev")
