"""Write `tests/fixtures/hub`: run `python -m tests.rewrite_hub_fixture` after a change."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets

from tests import hub_fixture

HUB = Path(__file__).parent / "fixtures" / "hub"
Rows = Sequence[Mapping[str, Any]]


def write_repository(path: Path, configs: Mapping[str, Mapping[str, Rows]], suffix: str) -> None:
    """Write a repository as the hub lays it out: a card that names the files of each split.

    Args:
        path: of the repository.
        configs: configuration -> split -> rows.
        suffix: `parquet` or `jsonl`.
    """
    card = ["---", "configs:"]
    for config, splits in configs.items():
        folder = "data" if config == "default" else config
        card += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            name = f"{folder}/{split}-00000-of-00001.{suffix}"
            (path / folder).mkdir(parents=True, exist_ok=True)
            if suffix == "parquet":
                datasets.Dataset.from_list([dict(row) for row in rows]).to_parquet(path / name)
            else:
                write_lines(path / name, rows)
            card += [f"  - split: {split}", f"    path: {name}"]
    (path / "README.md").write_text("\n".join([*card, "---", "", f"# {path.name}", ""]))


def write_lines(path: Path, rows: Rows) -> None:
    """Write JSON Lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def main() -> None:
    """Write all repositories and the answers to LaMP-QA."""
    arena, prism = hub_fixture.arena(), hub_fixture.prism()
    write_repository(HUB / "chatbot_arena_personalized_0125", {"default": arena}, "parquet")
    write_repository(HUB / "prism_personalized_0125", {"default": prism}, "parquet")
    alignment = {
        "survey": {"train": hub_fixture.survey()},
        "conversations": {"train": hub_fixture.conversations()},
        "utterances": {"train": hub_fixture.utterances()},
    }
    write_repository(HUB / "prism-alignment", alignment, "jsonl")
    lamp = {name: hub_fixture.lampqa(i) for i, name in enumerate(hub_fixture.DOMAINS)}
    write_repository(HUB / "LaMP-QA", lamp, "parquet")
    write_lines(HUB / "lampqa-candidates.jsonl", hub_fixture.candidates())
    bench = {name: hub_fixture.reward_bench(i) for i, name in enumerate(hub_fixture.DOMAINS)}
    write_repository(HUB / "Personalized-RewardBench", bench, "jsonl")


if __name__ == "__main__":
    main()
