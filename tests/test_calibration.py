from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pgenrm.attributes.evaluator import AttributeEvaluator
from pgenrm.errors import InputError
from pgenrm.judge import PGenRM
from pgenrm.scaling.aggregate import ChainScale
from pgenrm.scaling.calibration import MIN_USERS, Calibration, calibrate
from pgenrm.scaling.evidence import ChainRecord, Record, evidence_of
from pgenrm.scaling.stopping import rounds
from pgenrm.types import (
    FailedChain,
    Failure,
    FailureKind,
    JudgedChain,
    Judgment,
    Outcome,
)
from tests.cases import chain
from tests.scaling_cases import Blend, FixedNeighbours, asked_by, generated, person

PER_USER = 4


def judgment(record: Record, number: int, label: int | None) -> Judgment:
    """A judgment that rests on these chains, of user number // 4."""
    n = record.n_responses

    def judged(one: ChainRecord, neighbour: str | None) -> JudgedChain:
        order = tuple((one.order + i) % n for i in range(n))
        return JudgedChain(
            order=order,
            chain=chain([one.scores[i] for i in order]),
            scores=one.scores,
            neighbour=neighbour,
            similarity=one.similarity if neighbour else None,
        )

    return Judgment(
        id=f"c{number}",
        user_id=f"user {number // PER_USER}",
        comparison_digest="",
        scores=(5.0,) * n,
        standard_errors=(None,) * n,
        choice=None,
        is_tie=True,
        label=label,
        outcome=None if label is None else Outcome.TIE,
        confidence=0.5,
        order_consistency=None,
        chains=(
            *(judged(one, None) for one in record.own),
            *(judged(one, f"neighbour {i}") for i, one in enumerate(record.neighbours)),
        ),
        failures=(),
        n_prompt_tokens=0,
        n_completion_tokens=0,
        cuts=(),
        evaluator="known",
        prompt_version="known@1",
        seed=0,
        n_history=record.n_history,
        neighbour_source="here" if record.neighbours else None,
    )


def within_scale(record: Record) -> Record:
    def clipped(chains: Sequence[ChainRecord]) -> list[ChainRecord]:
        return [replace(c, scores=tuple(min(max(s, 0), 10) for s in c.scores)) for c in chains]

    return replace(record, own=clipped(record.own), neighbours=clipped(record.neighbours))


@cache
def judgments(
    blend: Blend, n_users: int = 100, m: int = 8, n: int = 8, seed: int = 0
) -> tuple[Judgment, ...]:
    data, labels, _ = generated(
        n_users * PER_USER, blend, m=m, n_neighbours=n, noise=0.7, seed=seed
    )
    return tuple(
        judgment(within_scale(record), i, label)
        for i, (record, label) in enumerate(zip(data, labels, strict=True))
    )


USEFUL = Blend(own=1.2, neighbours=0.8)


@cache
def useful() -> Calibration:
    return calibrate(judgments(USEFUL))


# ---------------------------------------------------------------- what is learnt


def test_a_calibration_says_whose_chains_users_and_stages_it_rests_on() -> None:
    found = useful()
    assert found.evaluator == "known"
    assert (found.weights.n_users, found.weights.n_comparisons) == (100, 400)
    assert found.stopping.n_users == 100
    assert found.stopping.stages == rounds(8, 8)
    assert found.aggregator().is_calibrated


def test_neighbours_count_as_far_as_they_help() -> None:
    data, _, _ = generated(200, USEFUL, noise=0.7, seed=9)
    evidence = evidence_of(data)
    helpful = useful().aggregator().combine(evidence).neighbour_weight.mean()
    noise = calibrate(judgments(Blend(1.2, 0))).aggregator().combine(evidence).neighbour_weight
    assert 0.3 < helpful < 0.5
    assert noise.mean() < 0.1


def test_reliability_is_measured_on_users_that_the_weights_have_not_seen() -> None:
    found = useful().reliability
    assert sum(b.n for b in found.bins) == 200
    assert found.expected_calibration_error < 0.1
    flat = calibrate(judgments(Blend(0, 0))).reliability
    assert flat.log_score == pytest.approx(np.log(2), abs=0.05)
    assert found.log_score < flat.log_score - 0.1


def test_the_same_judgments_teach_the_same_whether_listed_or_streamed() -> None:
    def stream() -> Iterator[Judgment]:
        yield from judgments(USEFUL)

    assert calibrate(stream()) == useful()


def test_what_the_user_told_decides_how_much_neighbours_count() -> None:
    cold = [replace(r, n_history=0) for r in generated(200, Blend(0, 1), noise=0.7)[0]]
    _, cold_labels, _ = generated(200, Blend(0, 1), noise=0.7)
    warm, warm_labels, _ = generated(200, Blend(1, 0), noise=0.7, seed=1)
    warm = [replace(r, n_history=4 + i % 4) for i, r in enumerate(warm)]
    rows = zip([*cold, *warm], cold_labels + warm_labels, strict=True)
    found = calibrate(judgment(within_scale(r), i, label) for i, (r, label) in enumerate(rows))
    bands = [(band.low, band.high, band.n) for band in found.by_history]
    assert bands == [(0, 0, 200), (4, 7, 200)]
    weights = [band.neighbour_weight for band in found.by_history]
    assert weights[0] > weights[1] + 0.3


@pytest.mark.parametrize(("m", "n"), [(4, 0), (1, 0), (1, 4), (2, 4)])
def test_few_chains_can_be_calibrated_too(m: int, n: int) -> None:
    found = calibrate(judgments(USEFUL, n_users=MIN_USERS, m=m, n=n))
    assert found.stopping.stages == rounds(m, n)


def test_a_run_of_neighbours_alone_can_be_calibrated() -> None:
    found = calibrate(judgments(USEFUL, n_users=MIN_USERS, m=0, n=4))
    assert (found.stopping.stages[-1].m, found.stopping.stages[-1].n) == (0, 4)
    data, _, _ = generated(5, USEFUL, m=0, n_neighbours=4)
    combined = found.aggregator().combine(evidence_of(data))
    assert (combined.neighbour_weight == 1).all()


def test_lost_chains_count_towards_the_caps() -> None:
    failure = Failure(kind=FailureKind.REQUEST, reason="down")

    def with_a_loss(one: Judgment) -> Judgment:
        kept = [c for i, c in enumerate(one.chains) if i != 2]
        lost = FailedChain(order=one.chains[2].order, failure=failure)
        return one.model_copy(update={"chains": tuple(kept), "failures": (lost,)})

    found = calibrate(map(with_a_loss, judgments(USEFUL, n_users=MIN_USERS)))
    assert found.stopping.stages == rounds(8, 8)


def test_what_cannot_teach_anything_is_left_out() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    single = Record([ChainRecord((7.0,), 0)], [], 3, 1)
    useless = (
        some[0].model_copy(update={"label": None}),
        some[1].model_copy(update={"chains": ()}),
        judgment(single, 7, 0),
    )
    assert calibrate((*some, *useless)) == calibrate(some)


def test_scores_can_be_put_on_a_common_scale_first() -> None:
    common = calibrate(judgments(USEFUL), scale=ChainScale.COMMON)
    assert common.weights.scale is ChainScale.COMMON
    assert common.aggregator().name != useful().aggregator().name


def test_a_stricter_error_level_stops_later() -> None:
    some = judgments(USEFUL, n_users=60)
    strict, loose = (calibrate(some, error=error).stopping for error in (0.0005, 0.05))
    assert strict.stop_below < loose.stop_below
    assert (strict.error, loose.error) == (0.0005, 0.05)


# ---------------------------------------------------------------- used by the judge


def test_a_calibrated_judge_says_how_likely_the_user_prefers_its_choice() -> None:
    source = FixedNeighbours([person(i) for i in range(1, 9)])
    aggregator = useful().aggregator()
    rm = PGenRM(AttributeEvaluator(), 4, 4, neighbours=source, aggregator=aggregator)
    found = rm.judge_one(asked_by(person(0)))
    plain = PGenRM(AttributeEvaluator(), 4, 4, neighbours=source).judge_one(asked_by(person(0)))
    assert (found.is_calibrated, plain.is_calibrated) == (True, False)
    assert found.aggregator == aggregator.name != plain.aggregator
    gap = abs((found.scores[0] or 0) - (found.scores[1] or 0))
    assert gap > 0
    assert 0.5 < (found.confidence or 0) < 1
    single = rm.judge_one(asked_by(person(0), responses=["one"]))
    assert (single.is_calibrated, single.confidence) == (False, None)


# ---------------------------------------------------------------- what is refused


def test_too_few_users_are_refused_however_many_comparisons_they_bring() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    with pytest.raises(InputError, match=f"{MIN_USERS - 1} users .* {MIN_USERS} are needed"):
        calibrate(some[:-PER_USER])
    with pytest.raises(InputError, match="0 users"):
        calibrate([])


def test_chains_of_several_evaluators_are_refused_by_name() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    other = some[0].model_copy(update={"evaluator": "another"})
    with pytest.raises(InputError, match=r"several evaluators \(another, known\)"):
        calibrate((other, *some[1:]))


def test_neighbours_from_several_prototypes_are_refused_by_name() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    there, later = (
        some[0].model_copy(update={"neighbour_source": name}) for name in ("there", "here/later")
    )
    with pytest.raises(InputError, match=r"several prototypes \(here, there\)"):
        calibrate((there, *some[1:]))
    assert calibrate((later, *some[1:])).neighbour_source == "here"


def test_different_numbers_of_own_chains_are_refused() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    smaller = some[0].model_copy(update={"chains": some[0].chains[2:]})
    with pytest.raises(InputError, match=r"different numbers of own chains \(6, 8\)"):
        calibrate((smaller, *some[1:]))


def test_it_is_known_whether_rubrics_were_checked() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    assert not calibrate(some).are_rubrics_checked
    checked = some[0].chains[-1].model_copy(update={"agreement": -2.0})
    one = some[0].model_copy(update={"chains": (*some[0].chains[:-1], checked)})
    assert calibrate((one, *some[1:])).are_rubrics_checked


def test_judgments_that_stopped_early_are_refused_by_id() -> None:
    some = judgments(USEFUL, n_users=MIN_USERS)
    early = some[5].model_copy(update={"is_settled": True})
    with pytest.raises(InputError, match="'c5' was judged with sequential stopping"):
        calibrate((*some, early))


# ---------------------------------------------------------------- kept in a file


def test_a_calibration_survives_a_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    useful().save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == useful()
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


def test_a_file_that_is_missing_or_holds_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    with pytest.raises(InputError, match=r"calibration\.json cannot be read"):
        Calibration.load(path)
    whole = useful().model_dump_json()
    for text in (
        "",
        whole[:-20],
        '{"evaluator": "known"}',
        whole.replace(f'"error":{useful().stopping.error}', '"error":7'),
    ):
        path.write_text(text, "utf-8")
        with pytest.raises(InputError, match=r"calibration\.json: "):
            Calibration.load(path)
