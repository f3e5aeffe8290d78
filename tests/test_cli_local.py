"""`pgenrm judge` with a transformers checkpoint made in the test: real loading, random answers."""

import json
from pathlib import Path

import pytest

from pgenrm.types import FailureKind
from tests.test_cli import Terminal, pgenrm, rows

pytest.importorskip("transformers", reason="needs the extra 'local'")
pytestmark = pytest.mark.local

__all__ = ["pgenrm"]  # the fixture


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny_llama import make_tiny_llama

    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


def test_an_untrained_model_is_unscored_with_its_texts_kept(
    pgenrm: Terminal, checkpoint: Path
) -> None:
    args = ("judge", "-", "--json", "--model", checkpoint, "-m", 2, "--max-tokens", 12)
    done = pgenrm(*args, stdin=rows(2))
    assert done.code == 1
    assert "no comparison could be scored" in done.err
    for line in done.out.splitlines():
        record = json.loads(line)
        assert record["outcome"] == "unscored"
        assert record["scores"] == [None, None]
        assert record["evaluator"] == f"local:{checkpoint}"
        for failed in record["failures"]:
            assert failed["failure"]["kind"] in {FailureKind.TRUNCATED, FailureKind.FORMAT}
            assert failed["failure"]["text"]


def test_the_checkpoints_own_prompt_is_used_and_recorded(
    pgenrm: Terminal, checkpoint: Path
) -> None:
    template = checkpoint / "pgenrm_prompt.jinja"
    template.write_text("{% set version = '7' %}{% block user %}{{ responses }}{% endblock %}")
    args = ("judge", "-", "--json", "--model", checkpoint, "-m", 1, "--max-tokens", 4)
    done = pgenrm(*args, stdin=rows(1))
    template.unlink()
    assert json.loads(done.out)["prompt_version"] == "pgenrm_prompt@7"


def test_a_checkpoint_that_is_not_there_says_what_to_do(pgenrm: Terminal, tmp_path: Path) -> None:
    done = pgenrm("judge", "-", "--model", tmp_path / "none", stdin=rows(1))
    assert done.code == 1
    assert str(tmp_path / "none") in done.err
