"""`pgenrm data check`."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pgenrm.cli import app
from pgenrm.data import CheckReport, check
from pgenrm.errors import InputError
from tests.rewrite_hub_fixture import HUB
from tests.test_data_sets import row, written


def checked(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def prism() -> CheckReport:
    return check("prism", folder=HUB)


def found(report: CheckReport) -> dict[str, tuple[int, tuple[str, ...]]]:
    return {c.name: (c.found, c.examples) for c in report.checks if c.found}


def test_every_trap_of_prism_is_found_and_named(prism: CheckReport) -> None:
    assert found(prism) == {
        "choices in several splits or parts": (1, ("user7: test/test, test/train",)),
        "conversations in several parts": (1, ("c60 of user6: train, test",)),
        "repeated rows": (1, ("test[28]",)),
        "two responses of the same text": (2, ("train[3]", "test[7]")),
        "empty texts": (1, ("test[6]",)),
        "scores missing": (1, ("train[2]",)),
        "equal scores": (1, ("train[0]",)),
        "chosen scored below rejected": (1, ("train[1]",)),
    }


def test_rows_users_and_selection_are_counted(prism: CheckReport) -> None:
    assert prism.rows["test"] == {"train": 13, "val": 6, "test": 10}
    assert prism.users == {"train": 3, "validation": 2, "test": 3}
    assert (prism.rows_per_user.smallest, prism.rows_per_user.largest) == (9, 10)
    assert prism.comparisons["test_unseen"] == 10
    assert sum(prism.values["type"].values()) == 74
    assert prism.values["agreement"] == {"0.8": 49, "0.6": 25}


def test_a_clean_set_has_nothing_to_report() -> None:
    assert found(check("arena", folder=HUB)) == {}


def test_seen_users_of_a_test_are_no_overlap(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [row("a", "ann"), row("a2", "ann")])
    written(tmp_path / "test.jsonl", [row("b", "ann"), row("c", "bob")])
    assert found(check(str(tmp_path))) == {}


def test_a_choice_that_two_splits_share_is_found(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [row("a", "ann")])
    written(tmp_path / "validation.jsonl", [row("a", "ann") | {"id": "b"}])
    assert found(check(str(tmp_path))) == {
        "choices in several splits or parts": (1, ("ann: train, validation",)),
        "repeated rows": (1, ("b",)),
    }


def test_the_command_prints_counts_traps_and_notes() -> None:
    result = checked("prism", "--folder", HUB)
    assert result.exit_code == 0
    for text in (
        "test_unseen",
        "c60 of user6",
        "equal scores",
        "Note: 1 of 8 users have no survey",
    ):
        assert text in result.stdout


def test_json_is_the_report(prism: CheckReport) -> None:
    result = checked("prism", "--folder", HUB, "--json")
    assert CheckReport.model_validate(json.loads(result.stdout)) == prism


@pytest.mark.parametrize("name", ["lampqa", "prbench"])
def test_sets_without_choices_of_the_user_are_checked_too(name: str) -> None:
    result = checked(name, "--folder", HUB)
    assert result.exit_code == 0
    assert "test_unseen" in result.stdout


def test_the_answers_of_lampqa_can_be_elsewhere(tmp_path: Path) -> None:
    shutil.copytree(HUB / "LaMP-QA", tmp_path / "LaMP-QA")
    with pytest.raises(InputError, match="--candidates"):
        checked("lampqa", "--folder", tmp_path)
    candidates = HUB / "lampqa-candidates.jsonl"
    result = checked("lampqa", "--folder", tmp_path, "--candidates", candidates)
    assert "test_unseen" in result.stdout


def test_a_name_that_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match="neither a file nor one of"):
        checked("nothing")


def test_signs_that_rewrite_the_screen_are_not_printed(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", [row("a\x1b[2J", "ann")])
    written(tmp_path / "validation.jsonl", [row("a\x1b[2J", "ann") | {"id": "b\x1b[2J"}])
    result = checked(tmp_path)
    assert "b�[2J" in result.stdout
    assert "\x1b[2J" not in result.stdout
