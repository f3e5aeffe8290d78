import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgenrm.attributes.measure import measure
from pgenrm.errors import InputError, RowError
from pgenrm.rows import read_comparisons
from pgenrm.sim import GivenResponses, World, WorldConfig, oracle, references, simulate
from pgenrm.sim.source import is_held_out
from pgenrm.sim.tastes import ATTRIBUTES

REAL = Path(__file__).parents[2] / "shared/data/responses.jsonl.gz"

BODIES = (
    "Water it twice a week.",
    "# Care\n\n- Water it twice a week.\n- Keep it out of the sun.\n- Feed it in spring.",
    "I am so glad you asked, dear friend! You will love it. For example, my fern is happy 😄",
    "It might depend on the soil. According to a 2019 study, 40 percent do. Shall I go on?",
    "Regarding this matter, kindly consult a professional. " * 8,
)


def rows(n: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"How do I look after plant number {i}?",
            "responses": {f"writer {j}": f"{body} (plant {i})" for j, body in enumerate(BODIES)},
        }
        for i in range(n)
    ]


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in content)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    path = written(tmp_path_factory.mktemp("given") / "responses.jsonl", rows())
    return World(seed=1, source=GivenResponses(path))


def test_features_are_measured_attributes(world: World) -> None:
    scenario, features = world.source.read("How do I fix my code?", BODIES)
    assert scenario == 0
    assert features.shape == (len(BODIES), len(ATTRIBUTES))
    lengths = features[:, ATTRIBUTES.index("detailed")]
    np.testing.assert_allclose(lengths, [measure(body)[0] for body in BODIES])


def test_users_choose_between_given_responses_to_the_same_instruction(world: World) -> None:
    given = {row["instruction"]: set(row["responses"].values()) for row in rows()}
    for comparison in world.comparisons("test_unseen", 60):
        query = comparison.context[-1].content
        assert set(comparison.responses) <= given[query]
        assert len(set(comparison.responses)) == 2
        for pair in comparison.user.history:
            assert pair.chosen in given[pair.context[-1].content]


def test_instructions_of_history_and_test_are_disjoint(world: World) -> None:
    for comparison in world.comparisons("test_seen", 60):
        assert is_held_out(comparison.context[-1].content)
        assert not any(is_held_out(p.context[-1].content) for p in comparison.user.history)


def test_history_helps_the_observer_and_the_oracle_is_best(world: World) -> None:
    comparisons = list(world.comparisons("test_unseen", 600))
    none, three = references(comparisons, world, (0, 3))
    best = oracle(comparisons, world)
    assert none.accuracy.accuracy < three.accuracy.accuracy < best.accuracy.accuracy


def test_a_gzipped_file_with_lists_of_responses_gives_the_same_world(
    world: World, tmp_path: Path
) -> None:
    lists = [row | {"responses": list(row["responses"].values())} for row in rows()]
    path = written(tmp_path / "responses.jsonl.gz", lists)
    other = World(seed=1, source=GivenResponses(path))
    assert list(other.comparisons("train", 20)) == list(world.comparisons("train", 20))
    assert other.source.version == world.source.version


def test_simulate_writes_a_world_over_given_responses(tmp_path: Path) -> None:
    path = written(tmp_path / "given.jsonl", rows())
    card = simulate(tmp_path / "out", 8, responses=path)
    assert card.source.startswith("given responses ")
    assert len(list(read_comparisons([tmp_path / "out" / "test_unseen.jsonl"]))) == 8


def test_a_row_with_one_response_is_an_error_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.jsonl", [*rows(2), {"instruction": "?", "responses": ["a"]}])
    with pytest.raises(RowError, match=r"bad.jsonl:3: .*responses"):
        GivenResponses(path)


def test_a_row_whose_responses_are_all_alike_is_an_error_with_its_place(tmp_path: Path) -> None:
    same = {"instruction": "?", "responses": ["Yes.", "Yes."]}
    with pytest.raises(RowError, match=r"bad.jsonl:1: no two responses measure differently"):
        GivenResponses(written(tmp_path / "bad.jsonl", [same]))


def test_too_few_instructions_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 instructions leave"):
        GivenResponses(written(tmp_path / "few.jsonl", rows(1)))


@pytest.mark.skipif(not REAL.exists(), reason="../shared/data/responses.jsonl.gz is not here")
def test_simulated_users_over_real_responses_leave_room_between_the_references() -> None:
    world = World(WorldConfig(), seed=4, source=GivenResponses(REAL))
    comparisons = list(world.comparisons("test_unseen", 1000))
    none, three = references(comparisons, world, (0, 3))
    assert 0.5 < none.accuracy.accuracy < 0.62
    assert 0.70 < three.accuracy.accuracy < 0.80
    assert 0.82 < oracle(comparisons, world).accuracy.accuracy < 0.91
