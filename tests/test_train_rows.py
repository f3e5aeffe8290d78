from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pgenrm.errors import InputError
from pgenrm.train.recipe import DataSpec
from pgenrm.train.rows import Rows, find_files, load_rows
from pgenrm.train.sampler import EpochSampler
from tests.tiny_llama import make_tiny_llama
from tests.train_cases import chat_rows, write_rows

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(make_tiny_llama(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield


def load(path: Path, tokenizer: Any, window: int | None = None, **more: Any) -> Rows:
    return load_rows(DataSpec(path=str(path), **more), tokenizer, window, "tiny")


def test_parquet_and_json_lines_give_the_same_rows(tmp_path: Path, tokenizer: Any) -> None:
    lines = write_rows(tmp_path / "rows.jsonl", chat_rows())
    Dataset.from_list(chat_rows()).to_parquet(str(tmp_path / "rows.parquet"))
    a, b = load(lines, tokenizer), load(tmp_path / "rows.parquet", tokenizer)
    assert a.dataset.to_list() == b.dataset.to_list()
    assert a.n_tokens == b.n_tokens
    assert all(whole > prompt for prompt, whole in zip(a.n_prompt_tokens, a.n_tokens, strict=True))


def test_texts_and_tasks_mix_and_a_text_is_learned_whole(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": "a kind reply"}, {"prompt": "a kind ", "completion": "reply"}]
    loaded = load(write_rows(tmp_path / "rows.jsonl", rows), tokenizer)
    assert loaded.columns_to_train == ["prompt", "completion"]
    assert [row["prompt"] for row in loaded.dataset] == ["", "a kind "]
    whole = len(tokenizer("a kind reply</s>")["input_ids"])
    assert loaded.n_tokens == [whole, whole]


def test_rows_may_be_tokens_already(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"input_ids": [5, 6, 7, 8], "completion_mask": [0, 0, 1, 0]}]
    loaded = load(write_rows(tmp_path / "rows.jsonl", rows), tokenizer)
    assert loaded.columns_to_train == ["input_ids", "completion_mask"]
    assert (loaded.n_prompt_tokens, loaded.n_tokens) == ([2], [4])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "no rows"),
        ([{"messages": []}], "needs prompt and completion, or text"),
        ([{"prompt": "a", "completion": " "}], "row 1 has an empty completion"),
        ([{"text": " "}], "empty text"),
        ([{"input_ids": [1, 2], "completion_mask": [0, 0]}], "mask of 2 with 0 ones"),
        ([{"input_ids": [1, 2], "completion_mask": [1]}], "2 ids and a mask of 1"),
        ([{"input_ids": [1, 10**6], "completion_mask": [0, 1]}], "ids from 1 to 1000000"),
        ([{"id": "x", "prompt": "a", "completion": None, "text": None}], "row 'x' lacks"),
        (
            [{"prompt": [{"role": "user", "content": "a"}], "completion": "b"}],
            "of different kinds",
        ),
    ],
)
def test_rows_that_nothing_can_be_learned_from_are_refused(
    tmp_path: Path, tokenizer: Any, rows: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        load(write_rows(tmp_path / "rows.jsonl", rows), tokenizer)


def test_a_file_that_holds_no_rows_at_all_says_which(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"no parquet")
    with pytest.raises(InputError, match=r"rows\.parquet cannot be read"):
        load(tmp_path / "rows.parquet", tokenizer)


def test_messages_need_a_chat_template(tmp_path: Path, tokenizer: Any) -> None:
    bare = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bare.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        load(write_rows(tmp_path / "rows.jsonl", chat_rows()), bare)


def test_a_row_that_does_not_fit_is_named_or_dropped_and_counted(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = chat_rows(3)
    rows[1]["prompt"][0]["content"] = "a kind reply " * 500
    path = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match=r"1 of 3 rows .* row 'r1' has \d+ prompt tokens"):
        load(path, tokenizer, 200)
    loaded = load(path, tokenizer, 200, too_long="drop")
    assert [row["id"] for row in loaded.dataset] == ["r0", "r2"]
    assert loaded.n_dropped == 1
    assert max(loaded.n_tokens) <= 200
    with pytest.raises(InputError, match="no row"):
        load(path, tokenizer, 5, too_long="drop")


def test_a_directory_is_read_by_its_splits(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.jsonl"):
        (tmp_path / name).touch()
    found = find_files(DataSpec(path=str(tmp_path), split="train"))
    assert [f.name for f in found] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]
    with pytest.raises(InputError, match="holds test, train; choose"):
        find_files(DataSpec(path=str(tmp_path)))
    with pytest.raises(InputError, match="did you mean train"):
        find_files(DataSpec(path=str(tmp_path), split="trian"))


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=200),
    st.integers(1, 16),
    st.integers(0, 5),
    st.booleans(),
)
def test_an_epoch_holds_every_row_once_in_an_order_of_its_own(
    lengths: list[int], n_batch: int, epoch: int, is_grouped: bool
) -> None:
    def order(epoch: int) -> list[int]:
        sampler = EpochSampler(
            len(lengths), 7, lengths=lengths if is_grouped else None, n_batch=n_batch
        )
        sampler.set_epoch(epoch)
        return list(sampler)

    assert Counter(order(epoch)) == Counter(range(len(lengths)))
    assert order(epoch) == order(epoch)
    if not is_grouped and len(lengths) > 20:
        assert order(epoch) != order(epoch + 1)


def test_grouped_batches_hold_rows_of_similar_length() -> None:
    lengths = [(37 * i) % 100 for i in range(100)]
    grouped = list(EpochSampler(100, 0, lengths=lengths, n_batch=10))
    mixed = list(EpochSampler(100, 0, lengths=None, n_batch=10))

    def waste(order: list[int]) -> int:
        batches = [[lengths[i] for i in order[k : k + 10]] for k in range(0, 100, 10)]
        return sum(max(batch) * len(batch) - sum(batch) for batch in batches)

    assert waste(grouped) < waste(mixed) / 5
    firsts = [lengths[grouped[k]] for k in range(0, 100, 10)]
    assert firsts != sorted(firsts)  # batches are not learned from short to long
