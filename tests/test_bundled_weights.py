"""The bundled judge as it ships: its chains can be read, and follow from themselves."""

from pathlib import Path

from benchmarks.bundled_judge import Job, chains_of, judged_in
from benchmarks.nano_steps import guesses_follow, steps_right
from rich.console import Console

from pgenrm.sim.world import World

FLOORS = {
    **{"reading": 90, "likes and dislikes": 95, "evidence": 95, "statements": 95, "tastes": 90},
    **{"leanings": 95, "scenario": 95, "apart": 95, "wants": 95, "most": 95, "rubric": 92},
    **{"ratings": 95, "totals": 95},
}
"""Percent; docs/training.md has what was measured on many more."""


def test_each_step_of_its_chains_follows_from_those_before(tmp_path: Path) -> None:
    world = World(seed=907)  # nothing was trained or chosen on it
    job = Job("own", "nano", 3, 4)
    given = job.given(world, 24)
    judgments = judged_in(job, given, tmp_path, Console(quiet=True))
    asked, readable, consistent = chains_of(judgments)
    right = steps_right(given, judgments, world)
    Console().print({step: round(value, 1) for step, value in right.items()})  # for pytest -s
    assert asked == 96
    assert readable >= 95
    assert consistent >= 0.96 * readable
    assert right.keys() == FLOORS.keys()
    assert {step for step, value in right.items() if value < FLOORS[step]} == set()
    assert guesses_follow(judgments) > 0.5
