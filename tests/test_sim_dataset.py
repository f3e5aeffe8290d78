import json
from pathlib import Path
from typing import Any

import pytest

from pgenrm.errors import InputError
from pgenrm.rows import read_comparisons
from pgenrm.sim import Card, ComparisonTruth, UserTruth, World, WorldConfig, oracle, simulate

SPLITS = ("train", "validation", "test_seen", "test_unseen")
SMALL = WorldConfig(n_train=8, n_validation=1, n_test=2, n_history=3)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    simulate(directory, 40, seed=2, config=SMALL)
    return directory


def truth(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_the_files_hold_what_the_world_yields(directory: Path) -> None:
    world = World(SMALL, seed=2)
    for split in SPLITS:
        read = list(read_comparisons([directory / f"{split}.jsonl"]))
        assert read
        assert read == list(world.comparisons(split, len(read)))


def test_nothing_but_the_files_named_is_left(directory: Path) -> None:
    names = {f"{name}.jsonl" for name in (*SPLITS, "truth")} | {"card.json", "card.md"}
    assert {path.name for path in directory.iterdir()} == names


def test_the_truth_covers_every_user_and_comparison_once(directory: Path) -> None:
    rows = truth(directory)
    users = [UserTruth.model_validate(row) for row in rows if "user_id" in row]
    truths = [ComparisonTruth.model_validate(row) for row in rows if "user_id" not in row]
    comparisons = list(read_comparisons([directory / f"{split}.jsonl" for split in SPLITS]))
    assert [u.user_id for u in users] == [f"u{i:05d}" for i in range(40)]
    assert sorted(t.id for t in truths) == sorted(c.id for c in comparisons)


def test_the_truth_explains_the_probability_of_a_choice(directory: Path) -> None:
    rows = truth(directory)
    weights = {row["user_id"]: row["weights"] for row in rows if "user_id" in row}
    for row in rows:
        if "user_id" in row:
            continue
        of_scenario = weights[row["id"].split("-")[0]][row["scenario"]]
        first, second = (
            sum(of_scenario.get(name, 0.0) * value for name, value in features.items())
            for features in row["features"]
        )
        assert (first > second + 0.01) <= (row["probability"] > 0.5)
        assert (first < second - 0.01) <= (row["probability"] < 0.5)


def test_the_truth_is_not_in_what_a_judge_reads(directory: Path) -> None:
    text = (directory / "test_unseen.jsonl").read_text(encoding="utf-8")
    for word in ("weights", "prototype", "probability", "features", "hard", "scenario"):
        assert f'"{word}"' not in text


def test_the_card_is_read_back_and_has_the_references_of_its_files(directory: Path) -> None:
    card = Card.model_validate_json((directory / "card.json").read_text(encoding="utf-8"))
    assert card.config == SMALL
    assert card.counts == {"train": 240, "validation": 30, "test_seen": 60, "test_unseen": 20}
    unseen = next(g for g in card.groups if g.split == "test_unseen")
    comparisons = list(read_comparisons([directory / "test_unseen.jsonl"]))
    assert unseen.references[0].accuracy == oracle(comparisons, World(SMALL, seed=2)).accuracy
    assert [r.n_pairs for r in unseen.references] == [None, 0, 1, 2, 3]
    markdown = (directory / "card.md").read_text(encoding="utf-8")
    assert "seed 2" in markdown
    assert f"{100 * unseen.references[0].accuracy.accuracy:.1f}" in markdown


def test_the_same_seed_writes_the_same_bytes(directory: Path, tmp_path: Path) -> None:
    simulate(tmp_path, 40, seed=2, config=SMALL)
    for path in directory.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_fewer_users_write_the_beginning_of_the_same_files(directory: Path, tmp_path: Path) -> None:
    simulate(tmp_path, 8, seed=2, config=SMALL)
    for name in (*SPLITS, "truth"):
        few = (tmp_path / f"{name}.jsonl").read_bytes()
        assert few
        assert (directory / f"{name}.jsonl").read_bytes().startswith(few)


def test_a_stopped_run_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("older\n")

    def stop(n_done: int, n: int) -> None:
        assert n == 5
        if n_done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path, 5, config=SMALL, progress=stop)
    assert [p.name for p in tmp_path.iterdir()] == ["train.jsonl"]
    assert (tmp_path / "train.jsonl").read_text() == "older\n"


def test_one_user_is_enough(tmp_path: Path) -> None:
    card = simulate(tmp_path / "new" / "directory", 1, config=SMALL)
    assert card.counts["test_unseen"] == 0
    assert {group.split for group in card.groups} == {"test_seen"}


def test_no_user_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n_users = 0"):
        simulate(tmp_path, 0)


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        simulate(tmp_path / "file", 1)
