import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from pgenrm.attributes.measure import ATTRIBUTES as MEASURABLE
from pgenrm.attributes.measure import measure
from pgenrm.attributes.scenario import classify
from pgenrm.seeding import rng
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.language import PHRASES, QUERIES, Query, read_attributes, write_response
from pgenrm.sim.source import Draft, is_held_out
from pgenrm.sim.tastes import (
    ATTRIBUTES,
    CRITERIA,
    DESCRIPTIONS,
    LOADINGS,
    MEASURED,
    SCENARIOS,
    WANTED,
)
from pgenrm.sim.texts import SimulatedTexts
from pgenrm.types import Message

SEEDS = st.integers(0, 2**32 - 1)
QUERY_LIST = list(QUERIES.values())
SOURCE = SimulatedTexts(WorldConfig())


@given(
    query=st.sampled_from(QUERY_LIST),
    attributes=st.lists(st.booleans(), min_size=len(ATTRIBUTES), max_size=len(ATTRIBUTES)),
    seed=SEEDS,
)
def test_reading_a_response_gives_the_attributes_it_was_written_from(
    query: Query, attributes: list[bool], seed: int
) -> None:
    wanted = np.array(attributes, dtype=float)
    text = write_response(query, wanted, rng(seed))
    np.testing.assert_array_equal(read_attributes(text), wanted)


@given(seed=SEEDS, narrow=st.booleans(), held_out=st.booleans())
def test_responses_have_15_to_60_words(seed: int, narrow: bool, held_out: bool) -> None:
    draft = SOURCE.draw(rng(seed), narrow=narrow, held_out=held_out)
    assert all(15 <= len(text.split()) <= 60 for text in draft.responses)


@given(seed=SEEDS, narrow=st.booleans(), held_out=st.booleans())
def test_a_draft_says_what_can_be_read_in_its_texts(
    seed: int, narrow: bool, held_out: bool
) -> None:
    draft = SOURCE.draw(rng(seed), narrow=narrow, held_out=held_out)
    scenario, features = SOURCE.read(draft.query, draft.responses)
    assert scenario == draft.scenario
    np.testing.assert_array_equal(features, draft.features)
    assert is_held_out(draft.query) is held_out


@given(seed=SEEDS)
def test_a_narrow_pair_differs_in_two_attributes_of_one_taste_to_the_same_side(seed: int) -> None:
    draft = SOURCE.draw(rng(seed), narrow=True, held_out=False)
    difference = (draft.features[0] - draft.features[1])[: len(WANTED)]
    levels = (LOADINGS[:, : len(WANTED)] * difference)[:, difference != 0]
    assert levels.shape[1] == 2
    assert sorted(np.count_nonzero(levels, axis=1)) == [0, 0, 2]
    assert abs(np.sign(levels).sum()) == 2


def test_every_attribute_has_at_least_six_paraphrases() -> None:
    count = {name: len(set(phrases)) for kind in PHRASES for name, phrases in PHRASES[kind].items()}
    assert set(ATTRIBUTES) <= set(count)
    assert min(count.values()) >= 6


def test_what_users_state_has_at_least_six_paraphrases_and_one_meaning_each() -> None:
    for items in (CRITERIA, DESCRIPTIONS):
        assert min(map(len, items)) >= 6
        texts = [text for item in items for text in item]
        assert len(texts) == len(set(texts))


def test_there_are_many_queries_in_every_scenario() -> None:
    scenarios = [query.scenario for query in QUERY_LIST]
    assert len(set(scenarios)) == 6
    for scenario in set(scenarios):
        texts = [query.text for query in QUERY_LIST if query.scenario == scenario]
        assert len(texts) >= 300
        assert 0.1 < np.mean([is_held_out(text) for text in texts]) < 0.3


def test_the_scenario_classifier_recognises_the_queries() -> None:
    right = [
        classify([Message(role="user", content=query.text)]) == SCENARIOS[query.scenario]
        for query in QUERY_LIST
    ]
    assert np.mean(right) > 0.95


@pytest.fixture(scope="module")
def drafts() -> list[Draft]:
    return [SOURCE.draw(rng("draft", i), narrow=False, held_out=False) for i in range(400)]


@pytest.mark.parametrize("name", WANTED)
def test_the_measured_attributes_see_the_attributes_of_the_world(
    name: str, drafts: list[Draft]
) -> None:
    column = [a.name for a in MEASURABLE].index(MEASURED[name])
    measured = np.array([measure(text)[column] for d in drafts for text in d.responses])
    has = np.concatenate([d.features[:, ATTRIBUTES.index(name)] for d in drafts]) == 1
    assert area_under_curve(measured, has) > (0.8 if name == "detailed" else 0.95)


def area_under_curve(values: NDArray[np.float64], has: NDArray[np.bool_]) -> float:
    statistic = mannwhitneyu(values[has], values[~has]).statistic
    return float(statistic / (has.sum() * (~has).sum()))


def test_both_sides_of_a_taste_are_shown_equally_often(drafts: list[Draft]) -> None:
    first = np.stack([d.features[0] - d.features[1] for d in drafts])
    assert np.abs(first.mean(axis=0)).max() < 0.2
