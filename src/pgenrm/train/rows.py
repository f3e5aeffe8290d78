"""Rows to learn from: files in, a checked data set with its token counts out.

A row is `prompt` and `completion`, as plain texts or as lists of messages; the loss is on the
completion. Or it is a `text`, all of which is learned: that is a completion with an empty prompt.
Or it is `input_ids` with a `completion_mask`, for a loss on parts that no prompt can mark off.
Other columns stay for samples and reports. Deliberately left out: streaming; rows lie in files that
`datasets` maps into memory.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgenrm.errors import InputError, MissingExtraError
from pgenrm.train.models import check_chat_template
from pgenrm.train.recipe import DataSpec, near
from pgenrm.train.record import fingerprint_files

try:
    from datasets import Dataset, concatenate_datasets
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError
    from pyarrow.lib import ArrowException
    from transformers import PreTrainedTokenizerBase
except ImportError as error:
    raise MissingExtraError("train", "training") from error

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")
ENCODED = ("input_ids", "completion_mask")
"""Columns of rows that are tokens already; the mask is 1 where the loss counts."""
FOR_TEMPLATE = ("chat_template_kwargs", "tools")
"""Columns that TRL hands to the chat template."""


@dataclass(frozen=True)
class Rows:
    """A data set that fits the model."""

    dataset: Dataset
    """Columns `prompt` and `completion`, or those of `ENCODED`, and whatever else the file has."""
    n_prompt_tokens: list[int]
    """[n_rows], as rendered."""
    n_tokens: list[int]
    """[n_rows], of prompt, completion and end token together."""
    n_dropped: int
    """Rows that did not fit, where the recipe says to drop those."""
    fingerprint: str

    @property
    def columns_to_train(self) -> list[str]:
        """Names of the columns that the trainer needs."""
        wanted = ("prompt", "completion", *FOR_TEMPLATE, *ENCODED)
        return [name for name in wanted if name in self.dataset.column_names]


def load_rows(
    spec: DataSpec, tokenizer: PreTrainedTokenizerBase, window: int | None, name: str
) -> Rows:
    """Load the rows and see that a model can learn from each of them.

    Args:
        spec: where they are.
        tokenizer: counts tokens and renders messages.
        window: tokens that a row may have: the model's context, or what the recipe cuts at; None
            for no bound.
        name: what to call the tokenizer's model in messages.

    Raises:
        InputError: there are none, one is unreadable or too long, or messages cannot be rendered.
    """
    files = find_files(spec)
    dataset = read_files(files)
    is_encoded = set(ENCODED) <= set(dataset.column_names)
    if not is_encoded:
        dataset = as_completions(dataset, str(files[0]))
    if spec.limit is not None:
        dataset = dataset.select(range(min(spec.limit, len(dataset))))
    if is_encoded:
        n_prompt_tokens, n_tokens = _count_encoded(dataset, len(tokenizer), str(files[0]))
    else:
        if is_chat(dataset):
            check_chat_template(tokenizer, name)
        n_prompt_tokens, n_tokens = count_tokens(dataset, tokenizer)
    long = [i for i, n in enumerate(n_tokens) if window is not None and n > window]
    if long and spec.too_long == "error":
        worst = max(long, key=n_tokens.__getitem__)
        raise InputError(
            f"{len(long)} of {len(dataset)} rows of {spec.path} are too long: "
            f"{row_name(dataset[worst], worst)} has {n_prompt_tokens[worst]} prompt tokens and "
            f"{n_tokens[worst]} in all, and {window} fit. Cut, they would teach chains that break "
            'off: raise trl.max_length, or leave them out with data.too_long = "drop"'
        )
    if long:
        left_out = set(long)
        kept = [i for i in range(len(dataset)) if i not in left_out]
        if not kept:
            raise InputError(f"no row of {spec.path} fits into {window} tokens")
        dataset = dataset.select(kept)
        n_prompt_tokens = [n_prompt_tokens[i] for i in kept]
        n_tokens = [n_tokens[i] for i in kept]
    fingerprint = fingerprint_files(files, spec.split, spec.limit)
    return Rows(dataset, n_prompt_tokens, n_tokens, len(long), fingerprint)


def find_files(spec: DataSpec) -> list[Path]:
    """Return the files of a data set, in order.

    Raises:
        InputError: there are none, or it takes a split to tell which.
    """
    path = Path(spec.path)
    if path.is_file():
        if spec.split is not None:
            raise InputError(f"{path} is a file; data.split chooses inside a directory")
        return [path]
    if not path.is_dir():
        raise InputError(f"{path}: no such file or directory; data.path names the rows to learn")
    if spec.split is not None:
        path = path / spec.split if (path / spec.split).is_dir() else path
    found = sorted(f for f in path.iterdir() if f.name.endswith(SUFFIXES))
    if spec.split is not None and path.name != spec.split:
        found = [f for f in found if _split(f) == spec.split]
    splits = sorted({_split(f) for f in found})
    if len(splits) > 1 and path.name != spec.split:
        raise InputError(f"{path} holds {', '.join(splits)}; choose with data.split")
    if not found:
        names = sorted({_split(f) for f in path.iterdir()})
        hint = near(spec.split, names) if spec.split else ""
        raise InputError(f"{path} has no rows of split {spec.split!r}{hint}; {SUFFIXES} are read")
    return found


def read_files(files: Sequence[Path]) -> Dataset:
    """Read parquet and JSON Lines files of one layout.

    Raises:
        InputError: one cannot be read, or there is no row in them.
    """
    parts = []
    for file in files:
        read = Dataset.from_parquet if file.suffix == ".parquet" else Dataset.from_json
        try:
            part = read(str(file))
        except StopIteration:  # a file of no bytes
            part = None
        except (DatasetsError, ArrowException, OSError, ValueError) as error:
            cause = error.__cause__ or error
            raise InputError(f"{file} cannot be read as rows: {cause}") from error
        if not isinstance(part, Dataset) or not len(part):
            raise InputError(f"{file} holds no rows; there is nothing to learn from")
        parts.append(part)
    return concatenate_datasets(parts)


def as_completions(dataset: Dataset, place: str) -> Dataset:
    """Give every row a prompt and a completion, the same form for all rows.

    Raises:
        InputError: a row has neither these nor a text, or forms are mixed.
    """
    columns = set(dataset.column_names)
    if not ({"prompt", "completion"} <= columns or "text" in columns):
        raise InputError(
            f"{place} has the columns {', '.join(sorted(columns))}; a row needs prompt and "
            "completion, or text, or input_ids and completion_mask"
        )
    texts = dataset["text"] if "text" in columns else [None] * len(dataset)
    prompts = dataset["prompt"] if "prompt" in columns else [None] * len(dataset)
    ends = dataset["completion"] if "completion" in columns else [None] * len(dataset)
    for i, (text, prompt, end) in enumerate(zip(texts, prompts, ends, strict=True)):
        if reason := _fault(text, prompt, end):
            raise InputError(f"{place}: {row_name(dataset[i], i)} {reason}")
    if "text" not in columns:
        return dataset
    return dataset.map(_from_text, remove_columns="text", desc="Reading texts")


def count_tokens(
    dataset: Dataset, tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int]]:
    """Count the tokens of every row as TRL will render it.

    Returns:
        [n_rows] tokens of the prompts, [n_rows] of prompts and completions together.

    Raises:
        InputError: the chat template refuses a row.
    """

    def count(batch: Mapping[str, list[Any]]) -> dict[str, list[int]]:
        rows = [dict(zip(batch, row, strict=True)) for row in zip(*batch.values(), strict=True)]
        prompts, wholes = zip(*(_rendered(row, tokenizer) for row in rows), strict=True)
        is_plain = isinstance(rows[0]["prompt"], str)
        return {
            name: [len(ids) for ids in tokenizer(list(t), add_special_tokens=is_plain)["input_ids"]]
            for name, t in (("prompt", prompts), ("whole", wholes))
        }

    try:
        counts = dataset.map(
            count, batched=True, remove_columns=dataset.column_names, desc="Counting tokens"
        )
    except TemplateError as error:
        raise InputError(
            f"the chat template refuses a row: {error}; write the chains with a prompt template "
            "whose roles it takes"
        ) from error
    return list(counts["prompt"]), list(counts["whole"])


def _count_encoded(dataset: Dataset, n_words: int, place: str) -> tuple[list[int], list[int]]:
    """Count as `count_tokens` does; the prompt is what stands before the first counted token.

    Raises:
        InputError: ids and mask of a row do not fit each other or the vocabulary.
    """
    n_prompt_tokens, n_tokens = [], []
    for i, (ids, mask) in enumerate(zip(*(dataset[name] for name in ENCODED), strict=True)):
        if len(ids) != len(mask) or 1 not in mask:
            raise InputError(
                f"{place}: {row_name(dataset[i], i)} has {len(ids)} ids and a mask of {len(mask)} "
                f"with {mask.count(1)} ones; both need one length, and something must be learnt"
            )
        if not 0 <= min(ids) <= max(ids) < n_words:
            raise InputError(
                f"{place}: {row_name(dataset[i], i)} has ids from {min(ids)} to {max(ids)}, the "
                f"tokenizer has {n_words} tokens; encode the rows with the model's own tokenizer"
            )
        n_prompt_tokens.append(mask.index(1))
        n_tokens.append(len(ids))
    return n_prompt_tokens, n_tokens


def is_chat(dataset: Dataset) -> bool:
    """Whether the rows are messages."""
    return not isinstance(dataset[0]["prompt"], str)


def row_name(row: Mapping[str, Any], index: int) -> str:
    """Return what to call a row in a message: its id, or its number."""
    return f"row {row['id']!r}" if row.get("id") is not None else f"row {index + 1}"


def _split(file: Path) -> str:
    """Return the split that a file belongs to: `train-00000-of-00002.parquet` is of `train`."""
    return file.name.split(".")[0].split("-0")[0]


def _fault(text: Any, prompt: Any, completion: Any) -> str | None:
    if text is not None and prompt is None and completion is None:
        return None if text.strip() else "has an empty text"
    if prompt is None or completion is None:
        return "lacks prompt or completion"
    if isinstance(prompt, str) != isinstance(completion, str):
        return "has a prompt and a completion of different kinds; make both texts or both messages"
    if not (completion.strip() if isinstance(completion, str) else completion):
        return "has an empty completion"
    return None


def _from_text(row: dict[str, Any]) -> dict[str, Any]:
    if row.get("prompt") is not None:
        return {"prompt": row["prompt"], "completion": row["completion"]}
    return {"prompt": "", "completion": row["text"]}


def _rendered(row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """Return prompt, and prompt with completion, as one text each."""
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, str):
        end = str(tokenizer.eos_token)
        return prompt, prompt + completion + ("" if completion.endswith(end) else end)
    how: dict[str, Any] = {"tokenize": False, "tools": row.get("tools")}
    how |= row.get("chat_template_kwargs") or {}
    return (
        str(tokenizer.apply_chat_template(prompt, add_generation_prompt=True, **how)),
        str(tokenizer.apply_chat_template([*prompt, *completion], **how)),
    )
