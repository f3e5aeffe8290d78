"""Repositories from the hub's cache and from folders, and what is said when they cannot be read."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from pgenrm.bench.plan import DataSource, load_pinned, load_source, open_plan, pinned_model
from pgenrm.data import load
from pgenrm.data.hub import HubRow, open_repository, read_rows
from pgenrm.errors import InputError, MissingExtraError
from tests import cases, hub_fixture
from tests.rewrite_hub_fixture import HUB, write_lines, write_repository

ARENA = "MichaelR207/chatbot_arena_personalized_0125"
COMMITS = {
    ARENA: "1" * 40,
    "MichaelR207/prism_personalized_0125": "2" * 40,
    "HannahRoseKirk/prism-alignment": "3" * 40,
}


class Numbers(HubRow):
    id: str
    number: int


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as a download from the hub leaves it; the network is off."""
    for repo_id, commit in COMMITS.items():
        stored = tmp_path / f"datasets--{repo_id.replace('/', '--')}"
        shutil.copytree(HUB / repo_id.partition("/")[2], stored / "snapshots" / commit)
        (stored / "refs").mkdir()
        (stored / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_the_commit_that_was_read_is_recorded(hub_cache: Path) -> None:
    dataset = load("arena")
    assert dataset.revision == f"chatbot_arena_personalized_0125@{'1' * 40}"
    assert dataset.splits == load("arena", folder=HUB).splits


def test_a_recorded_revision_can_be_given_again(hub_cache: Path) -> None:
    dataset = load("prism")
    assert dataset.revision == f"prism_personalized_0125@{'2' * 40},prism-alignment@{'3' * 40}"
    again = load("prism", revision=dataset.revision)
    assert (again.revision, again.splits) == (dataset.revision, dataset.splits)


def test_a_bench_stays_at_the_commit_that_it_began_with(hub_cache: Path, tmp_path: Path) -> None:
    source, dataset = load_pinned(DataSource(target="arena"), tmp_path / "bench")
    assert source.revision == dataset.revision
    open_plan(tmp_path / "bench", source, dataset)
    stored = hub_cache / f"datasets--{ARENA.replace('/', '--')}"
    (stored / "refs" / "main").write_text("5" * 40)
    shutil.copytree(stored / "snapshots" / ("1" * 40), stored / "snapshots" / ("5" * 40))
    assert load("arena").revision != dataset.revision, "the hub has moved on"
    again, _ = load_pinned(DataSource(target="arena"), tmp_path / "bench")
    assert again == source
    open_plan(tmp_path / "bench", again, load_source(again))


def test_what_a_bench_is_fitted_on_stays_at_its_commit_too(hub_cache: Path, tmp_path: Path) -> None:
    tests, out = tmp_path / "mine.jsonl", tmp_path / "bench"
    tests.write_text(cases.comparison().model_dump_json() + "\n")
    given = DataSource(target=str(tests), fit_on="arena")
    source, dataset = load_pinned(given, out)
    assert source.revision == dataset.revision
    assert f"chatbot_arena_personalized_0125@{'1' * 40}" in dataset.revision
    open_plan(out, source, dataset)
    stored = hub_cache / f"datasets--{ARENA.replace('/', '--')}"
    (stored / "refs" / "main").write_text("5" * 40)
    shutil.copytree(stored / "snapshots" / ("1" * 40), stored / "snapshots" / ("5" * 40))
    again, dataset = load_pinned(given, out)
    assert again == source
    open_plan(out, again, dataset)
    with pytest.raises(InputError, match="begun over other data"):
        open_plan(out, *load_pinned(DataSource(target=str(tests), fit_on="prism"), out))


def test_given_responses_are_fitted_on_from_a_written_world_only(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="simulate --responses FILE"):
        load_source(DataSource(target="prbench", folder=HUB, fit_on="sim-real"))


def test_a_model_of_the_hub_is_named_with_its_commit(hub_cache: Path) -> None:
    stored = hub_cache / "models--owner--model"
    for commit in ("6" * 40, "7" * 40):
        (stored / "snapshots" / commit).mkdir(parents=True)
        (stored / "snapshots" / commit / "config.json").write_text("{}")
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text("7" * 40)
    (stored / "refs" / "v1").write_text("6" * 40)
    assert pinned_model("owner/model") == f"owner/model@{'7' * 40}"
    assert pinned_model("owner/model@v1") == f"owner/model@{'6' * 40}"
    assert pinned_model(f"owner/model@{'6' * 40}") == f"owner/model@{'6' * 40}"
    assert pinned_model(str(hub_cache)) == str(hub_cache)
    for name in ("owner/none", "owner/model@v2", "no directory"):
        with pytest.raises(InputError, match=f"the model {name} is no directory and cannot be had"):
            pinned_model(name)


def test_a_commit_that_is_not_there_is_an_error(hub_cache: Path) -> None:
    with pytest.raises(InputError, match=f"{ARENA} at {'9' * 40} cannot be had from the hub"):
        load("arena", revision="9" * 40)


def test_a_revision_that_pins_another_repository_is_an_error() -> None:
    with pytest.raises(InputError, match="does not pin prism_personalized_0125"):
        load("prism", revision="prism-alignment@main")


def test_a_repository_that_cannot_be_reached_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match=r"cannot be had from the hub: .*give a folder"):
        load("arena")


def test_a_folder_without_the_repository_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"hf download --repo-type dataset {ARENA} --local-dir"):
        load("arena", folder=tmp_path)


def test_a_folder_and_a_revision_are_one_too_many() -> None:
    with pytest.raises(InputError, match="give one of the two"):
        load("arena", folder=HUB, revision="main")


def test_an_unknown_configuration_is_named(tmp_path: Path) -> None:
    write_repository(tmp_path / "r", {"a": {"train": [{"id": "x", "number": 1}]}}, "jsonl")
    with pytest.raises(InputError, match=r"\(configuration b\) cannot be read: .*'b' not found"):
        read_rows(open_repository("o/r", folder=tmp_path), Numbers, "b")


def test_a_broken_file_is_named_with_its_folder(tmp_path: Path) -> None:
    shutil.copytree(HUB / "chatbot_arena_personalized_0125", tmp_path / "broken")
    (tmp_path / "broken/data/train-00000-of-00001.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(InputError, match=r"broken cannot be read: .*layout of the hub"):
        read_rows(open_repository("o/broken", folder=tmp_path), Numbers)


def test_a_value_of_another_kind_in_a_late_row_is_found(tmp_path: Path) -> None:
    rows = [{"id": str(i), "number": i} for i in range(5)] + [{"id": "5", "number": None}]
    write_repository(tmp_path / "r", {"default": {"train": rows}}, "jsonl")
    with pytest.raises(InputError, match=r"r/train\[5\]: 'number'.* found null"):
        read_rows(open_repository("o/r", folder=tmp_path), Numbers)


def test_files_that_changed_beside_the_same_card_are_read_anew(tmp_path: Path) -> None:
    for number in (1, 2):
        splits = {"train": [{"id": "x", "number": number}]}
        write_repository(tmp_path / "r", {"default": splits}, "jsonl")
        repository = open_repository("o/r", folder=tmp_path)
        assert read_rows(repository, Numbers)["train"][0].number == number


def test_an_empty_split_has_no_rows(tmp_path: Path) -> None:
    splits = {"train": [{"id": "x", "number": 1}], "test": []}
    write_repository(tmp_path / "r", {"default": splits}, "jsonl")
    rows = read_rows(open_repository("o/r", folder=tmp_path), Numbers)
    assert {split: len(found) for split, found in rows.items()} == {"train": 1, "test": 0}


def test_without_the_extra_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pgenrm\[bench\]'"):
        load("arena", folder=HUB)


def test_the_fixtures_are_what_their_builder_writes(tmp_path: Path) -> None:
    write_lines(tmp_path / "c.jsonl", hub_fixture.candidates())
    assert (tmp_path / "c.jsonl").read_bytes() == (HUB / "lampqa-candidates.jsonl").read_bytes()
    survey = (HUB / "prism-alignment/survey/train-00000-of-00001.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in survey.splitlines()] == hub_fixture.survey()
