"""One way to every data set: `load(name or path)`."""

from pathlib import Path
from typing import Final

from pgenrm.data.arena import load_arena
from pgenrm.data.dataset import Dataset
from pgenrm.data.lampqa import load_lampqa
from pgenrm.data.lines import load_lines
from pgenrm.data.prism import load_prism
from pgenrm.data.reward_bench import load_reward_bench
from pgenrm.data.simulated import CARD, load_given, load_simulated
from pgenrm.errors import InputError

NAMES: Final = ("arena", "prism", "lampqa", "prbench", "sim", "sim-real")
OF_THE_HUB: Final = NAMES[:4]


def load(
    name_or_path: str,
    *,
    folder: Path | None = None,
    candidates: Path | None = None,
    revision: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Load a data set.

    Args:
        name_or_path: one of `NAMES`, a file of comparisons, or a directory of such files.
        folder: read from here instead of the hub: holds its repositories as folders of their names.
            For `sim` what `pgenrm simulate` wrote; for `sim-real` the file of responses.
        candidates: the answers to the questions of `lampqa`, which the hub does not have; by
            default `lampqa-candidates.jsonl` in the folder.
        revision: a commit of the hub; the newest by default. `Dataset.revision` names what was
            read and can be given again.
        limit: at most so many comparisons of each test split, drawn by the seed. Training splits
            stay whole, but a simulated world that is made here is made smaller.
        seed: of the limit, of the posts that are shown of an asker, and of a world made here.

    Raises:
        InputError: there is no such data set, it cannot be had, or an option does not go with it.
        RowError: a row is wrong; the message names it and its column.
        MissingExtraError: the `datasets` library is not installed.
    """
    if revision is not None and name_or_path not in OF_THE_HUB:
        raise InputError(
            f"revision {revision!r} is for data sets of the hub ({', '.join(OF_THE_HUB)}), not for "
            f"{name_or_path!r}"
        )
    if candidates is not None and name_or_path != "lampqa":
        raise InputError(f"candidates {candidates} are for lampqa, not for {name_or_path!r}")
    match name_or_path:
        case "sim":
            return load_simulated(folder, limit=limit, seed=seed)
        case "sim-real":
            if folder is None:
                raise InputError("sim-real needs a file of responses; give its path as the folder")
            return load_given(folder, limit=limit, seed=seed)
        case "lampqa":
            return load_lampqa(
                folder, revision, candidates=candidates, limit=limit, seed=seed
            ).dataset
        case "arena":
            dataset = load_arena(folder, revision)
        case "prism":
            dataset = load_prism(folder, revision)
        case "prbench":
            dataset = load_reward_bench(folder, revision, seed)
        case _:
            dataset = _at(Path(name_or_path), folder)
    return dataset if limit is None else dataset.limited(limit, seed)


def _at(path: Path, folder: Path | None) -> Dataset:
    if folder is not None:
        raise InputError(f"{path} is a path already; a folder is for {', '.join(NAMES)}")
    if not path.exists():
        raise InputError(f"{path} is neither a file nor one of {', '.join(NAMES)}")
    return load_simulated(path) if (path / CARD).is_file() else load_lines(path)
