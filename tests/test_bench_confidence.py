"""Confidences against what became of verdicts, over several runs and not fitted ones."""

from pathlib import Path

import numpy as np
import pytest

from pgenrm.bench.metrics import evaluate
from pgenrm.bench.results import CalibrationResult, CurvePoint
from pgenrm.bench.statistics import Estimate
from pgenrm.methods.protocol import Method
from pgenrm.report.drawing import curve
from pgenrm.report.page import page
from pgenrm.report.tables import calibration_error, error_by_chance, markdown
from pgenrm.scaling.reliability import reliability
from pgenrm.seeding import rng
from pgenrm.types import Comparison, Judgment
from tests.bench_cases import Chance, WithChains, dataset, run_bench


class Sure(Chance):
    """Right as often as it is told; with every seed equally sure of a comparison."""

    is_fitted = True

    def __init__(
        self, name: str, p: float, seed: int, between: tuple[float, float] = (0.5, 1.0)
    ) -> None:
        super().__init__(name, p, seed)
        self.between = between

    def judgment(self, comparison: Comparison) -> Judgment:
        sure = rng("sure", comparison.id).uniform(*self.between)
        update = {"confidence": sure, "is_calibrated": self.is_fitted}
        return super().judgment(comparison).model_copy(update=update)


class Unfitted(Sure):
    """Its confidences are no probabilities of being right."""

    is_fitted = False


def calibration(out: Path, name: str) -> CalibrationResult:
    found = evaluate(out).method(name).calibration
    assert found is not None
    return found


def test_a_run_that_is_too_sure_does_not_make_up_for_one_that_is_not_sure_enough(
    tmp_path: Path,
) -> None:
    runs = [Sure("gpo", p, seed, (0.74, 0.76)) for seed, p in enumerate((1.0, 0.5))]
    data = dataset(100, 4)
    alone = [
        calibration(run_bench(tmp_path / str(run.seed), [run], data), "gpo").error for run in runs
    ]
    assert alone[0] == pytest.approx(0.25, abs=0.01)
    both = calibration(run_bench(tmp_path / "both", runs, data), "gpo")
    assert both.error == pytest.approx(sum(alone) / 2, abs=1e-6)
    assert both.error > 0.2


def test_runs_that_say_the_same_again_narrow_no_interval(tmp_path: Path) -> None:
    data = dataset(120, 4)
    curves = [
        calibration(
            run_bench(tmp_path / str(n), [Repeating("gpo", 0.7, seed) for seed in range(n)], data),
            "gpo",
        )
        for n in (1, 3)
    ]
    assert curves[0].error == curves[1].error
    assert curves[0].curve == curves[1].curve
    for point in curves[0].curve:
        low, high = point.accuracy.interval or (1, 0)
        assert low < point.accuracy.value < high


class Repeating(Sure):
    """Says with every seed what it says with the first."""

    def judgment(self, comparison: Comparison) -> Judgment:
        self.seed = 0
        return super().judgment(comparison)


def test_a_run_with_few_verdicts_says_nothing(tmp_path: Path) -> None:
    out = run_bench(tmp_path, [Sure("gpo", 0.7, 0), Sure("gpo", 0.7, 1)])
    assert evaluate(out).method("gpo").calibration is None  # 2 x 72 verdicts


def test_confidences_that_were_not_fitted_are_marked_and_the_mark_is_explained(
    tmp_path: Path,
) -> None:
    methods: list[Method] = [Sure("gpo", 0.7, 0), WithChains("pgenrm", 4)]
    methods += [Sure("vpl", 0.7, 0), Unfitted("vpl", 0.7, 1)]
    result = evaluate(run_bench(tmp_path, methods, dataset(40, 4)))
    shown = {method.name: calibration_error(method) for method in result.methods}
    assert shown["gpo"].replace(".", "").isdigit()
    assert shown["pgenrm"].startswith("(")
    assert shown["vpl"].startswith("(")  # one of its runs
    fitted = result.model_copy(update={"methods": (result.method("gpo"),), "best_baseline": None})
    marked = [markdown(result, []), page(result, [], [])]
    unmarked = [markdown(fitted, []), page(fitted, [], [])]
    explanation = "Those in brackets are of confidences that were not fitted"
    for text in marked:
        assert shown["pgenrm"] in text
        assert explanation in text
    assert explanation not in "".join(unmarked)
    assert all("On 160 comparisons" in text for text in (*marked, *unmarked))


def test_the_error_by_chance_is_that_of_confidences_that_are_exactly_right() -> None:
    draws = np.random.default_rng(0)
    for n in (100, 1000):
        errors = []
        for _ in range(200):
            sure = draws.uniform(0.5, 0.7, n)
            errors.append(reliability(sure, draws.random(n) < sure).expected_calibration_error)
        assert error_by_chance(n) == pytest.approx(np.mean(errors), rel=0.05)


def test_a_curve_rises_with_accuracy_and_a_point_of_few_users_has_no_whisker() -> None:
    known = CurvePoint(confidence=0.75, accuracy=Estimate(value=0.8, interval=(0.7, 0.9)))
    few = CurvePoint(confidence=0.9, accuracy=Estimate(value=1.0, interval=None))
    found = CalibrationResult(is_calibrated=True, error=0.1, log_score=0.5, curve=(known, few))
    assert curve(found) == [(75, 20, 30, 10), (90, 0, 0, 0)]
