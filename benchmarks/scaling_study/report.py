"""Write the tables and pictures of docs/scaling.md between its markers; the words stay."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from benchmarks.scaling_study import jobs, pictures, setting
from benchmarks.scaling_study.gather import Job, Judged
from benchmarks.scaling_study.tables import (
    FIXED,
    LADDER,
    Adaptive,
    Figure,
    Right,
    Study,
    adaptive,
    calibration_of,
    figure,
    ladder,
    own_with,
    pairs_worth,
    rand_index,
)

from pgenrm.scaling.aggregate import ChainScale, PaperAggregator
from pgenrm.scaling.calibration import fit_weights
from pgenrm.sim.observer import oracle, references

Say = Callable[[str], None]
NAMES = ("paper", "shrinkage", "shrinkage, rubrics checked")


def write(out: Path, n_test: int, docs: Path, say: Say) -> None:
    """Compute every table, rewrite the page, draw the pictures, keep the numbers as JSON."""
    study = Study(out, n_test)
    parts: dict[str, str] = {}
    ladders = {}
    for evaluator in jobs.CAPS:
        ladders[evaluator] = ladder(study, evaluator)
        parts[f"ladder {evaluator}"] = _ladder(study, evaluator, ladders[evaluator])
        say(f"ladder of {evaluator}")
    known = _references(n_test)
    parts["references"] = _table(
        ("", *(f"{h} pairs" for h in (0, *jobs.PAIRS))),
        [(name, *map(_percent, row)) for name, row in known.items()],
    )
    parts["differences"] = _differences(study, ladders)
    parts["cold start"] = _cold_start(study)
    stops = [
        adaptive(study, evaluator, name, h)
        for evaluator in jobs.CAPS
        for name in NAMES[1:]
        for h in (*jobs.PAIRS, None)
    ]
    parts["adaptive"] = _adaptive(stops)
    parts["errors"] = _errors(study)
    say("cold start and stopping")
    sweep = _sweep(study)
    parts["k"] = _table(
        ("prototypes", "Ind-8,Pro-8", "against k = 0", "adjusted Rand index"), sweep.rows
    )
    parts["refinement"] = _refinement(study)
    parts["controls"] = _controls(study, ladders["shipped"])
    parts["options"] = _options(study)
    parts["calibration"] = _calibration(study)
    say("prototypes, controls, calibration")
    parts["run"] = (
        f"{datetime.now(UTC):%Y-%m-%d}, `python -m benchmarks.scaling_study "
        f"--comparisons {n_test}`."
        f"\nTest world seed {setting.TEST_SEED}, validation world seed {setting.VALIDATION_SEED}, "
        f"judge seed {setting.JUDGE_SEED}; {n_test} comparisons of {_n_users(study)} unseen users, "
        f"{setting.N_VALIDATION}\nvalidation comparisons, {setting.N_STORED} stored users with 12 "
        "past choices each. Accuracy in percent with its\n95 % interval (bootstrap over users); "
        f"ties and unscored comparisons count as wrong; coverage {100 * _coverage(study):.1f} %."
    )
    _rewrite(docs / "scaling.md", parts)
    (out / "numbers.json").write_text(
        json.dumps({"stops": [asdict(stop) for stop in stops]}, indent=1), "utf-8"
    )
    pictures.draw(study, ladders, known, sweep.curve, docs / "figures", say)


# ---------------------------------------------------------------- tables


def _ladder(study: Study, evaluator: str, rights: dict[tuple[str, int, int, int], Right]) -> str:
    found = []
    for h in jobs.PAIRS:
        users = study.main(evaluator, h).users
        rows = [
            (_design(m, n), *(_percent(figure(rights[name, h, m, n], users)) for name in NAMES))
            for m, n in LADDER
            if (NAMES[0], h, m, n) in rights
        ]
        found.append(_table((f"{h} past choice{'s' * (h > 1)}", *NAMES), rows))
    return "\n\n".join(found)


def _references(n_test: int) -> dict[str, list[Figure]]:
    test = setting.comparisons(setting.TEST_SEED, n_test)
    world = setting.world(setting.TEST_SEED)
    pairs = (0, *jobs.PAIRS)
    rows = {
        "Bayes observer": references(test, world, pairs, seed=setting.JUDGE_SEED),
        "oracle": [oracle(test, world)] * len(pairs),
    }
    return {
        name: [
            Figure(r.accuracy.accuracy, *(r.accuracy.interval or (np.nan, np.nan)), r.accuracy.n)
            for r in found
        ]
        for name, found in rows.items()
    }


def _differences(study: Study, ladders: dict[str, dict[tuple[str, int, int, int], Right]]) -> str:
    rows = []
    for evaluator, rights in ladders.items():
        n_max = jobs.CAPS[evaluator][1]
        for h in jobs.PAIRS:
            users = study.main(evaluator, h).users

            def minus(a: tuple[str, int, int], b: tuple[str, int, int]) -> str:
                first = rights[a[0], h, a[1], a[2]].astype(float)  # noqa: B023
                return _points(figure(first - rights[b[0], h, b[1], b[2]], users))  # noqa: B023

            rows.append(
                (
                    evaluator,
                    str(h),
                    *(minus((name, 16, n_max), (name, 16, 0)) for name in NAMES),
                    *(minus((name, 16, 16), ("paper", 16, 16)) for name in NAMES[1:]),
                )
            )
    return _table(
        (
            "evaluator",
            "pairs",
            *(f"{name}: most neighbours - none" for name in NAMES),
            *(f"{name} - paper, at Ind-16,Pro-16" for name in NAMES[1:]),
        ),
        rows,
    )


def _cold_start(study: Study) -> str:
    by_pairs = []
    for h in (0, 1, 2, 3, 4, 6):
        judged = study.judged(jobs.own_only(h)) if h in (2, 4) else study.main("shipped", h)
        rights = study.right_at(judged, PaperAggregator(), 8, 0, checked=False)
        by_pairs.append((h, float(rights.mean())))
    rows = []
    passes = [
        ("0, statements shown", study.judged(jobs.stated_job("test")), True),
        *((str(h), study.main("shipped", h), False) for h in (0, 1, 3, 6)),
    ]
    for name, judged, is_stated in passes:
        own = study.right_at(judged, PaperAggregator(), 8, 0, checked=False)
        for label, (aggregator, checked) in list(study.aggregators("shipped").items())[1:]:
            blended = study.right_at(judged, aggregator, 8, 32, checked=checked)
            worth = "-" if is_stated else f"{pairs_worth(float(blended.mean()), by_pairs):.1f}"
            rows.append(
                (
                    name,
                    str(len(own)),
                    label,
                    _percent(figure(own, judged.users)),
                    _percent(figure(blended, judged.users)),
                    _points(figure(blended.astype(float) - own, judged.users)),
                    worth,
                )
            )
    header = ("own pairs", "n", "aggregator", "Ind-8", "Ind-8,Pro-32", "difference", "worth pairs")
    curve = ", ".join(f"{100 * accuracy:.1f} with {h}" for h, accuracy in by_pairs)
    return _table(header, rows) + f"\n\nInd-8 alone, by own pairs: {curve}."


def _adaptive(stops: Iterable[Adaptive]) -> str:
    names = [
        (evaluator, h) for evaluator in jobs.CAPS for _ in NAMES[1:] for h in (*jobs.PAIRS, None)
    ]
    rows = [
        (
            evaluator,
            stop.name,
            "all" if h is None else str(h),
            _percent(stop.fixed),
            _percent(stop.adaptive),
            _points(stop.difference),
            f"{stop.mean_chains:.1f}",
            f"{stop.p90_chains:.0f}",
            f"{100 * stop.differing:.1f} %",
        )
        for (evaluator, h), stop in zip(names, stops, strict=True)
    ]
    return _table(
        (
            "evaluator",
            "aggregator",
            "pairs",
            _design(*FIXED),
            "adaptive",
            "difference",
            "mean chains",
            "90th percentile",
            "other verdict",
        ),
        rows,
    )


def _errors(study: Study) -> str:
    rows = []
    for evaluator in jobs.CAPS:
        for error in (0.001, 0.002, 0.005, 0.01, 0.02):
            stop = adaptive(study, evaluator, NAMES[2], None, error)
            rows.append(
                (
                    evaluator,
                    f"{100 * error:.1f}",
                    _points(stop.difference),
                    f"{stop.mean_chains:.1f}",
                    f"{stop.p90_chains:.0f}",
                    f"{stop.threshold:.4f}",
                )
            )
    return _table(
        ("evaluator", "error, points", "difference", "mean chains", "90th percentile", "threshold"),
        rows,
    )


class _Sweep:
    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []
        self.curve: list[tuple[int, float, float, float]] = []


def _blended(study: Study, neighbours: Judged) -> Right:
    own = study.main("shipped", jobs.SWEEP_PAIRS)
    joined = own_with(own, neighbours)
    aggregator = study.shrinkage("shipped", checked=True)
    return study.right_at(joined, aggregator, 8, jobs.SWEEP_N, checked=True)


def _alone(study: Study) -> Right:
    own = study.main("shipped", jobs.SWEEP_PAIRS)
    return study.right_at(own, PaperAggregator(), 8, 0, checked=False)


def _sweep(study: Study) -> _Sweep:
    users = study.main("shipped", jobs.SWEEP_PAIRS).users
    alone = _alone(study)
    sweep = _Sweep()
    sweep.rows.append(("0", _percent(figure(alone, users)), "-", "-"))
    for k in jobs.SWEEP_K:
        blended = _blended(study, study.judged(_at(k)))
        found = figure(blended, users)
        sweep.curve.append((k, found.mean, found.low, found.high))
        sweep.rows.append(
            (
                f"{k}{' (true number)' if k == setting.TRUE_K else ''}",
                _percent(found),
                _points(figure(blended.astype(float) - alone, users)),
                f"{rand_index(study.out, k, 'refined'):.3f}",
            )
        )
    return sweep


def _at(k: int) -> Job:
    return jobs.refined_as("refined") if k == setting.TRUE_K else jobs.at_k(k)


def _refinement(study: Study) -> str:
    users = study.main("shipped", jobs.SWEEP_PAIRS).users
    base = _blended(study, study.judged(jobs.refined_as("refined")))
    rows = []
    for name in setting.REFINEMENTS:
        blended = _blended(study, study.judged(jobs.refined_as(name)))
        fitted = setting.prototypes(study.out, "shipped", setting.TRUE_K, name)
        epochs = fitted.refinement_ or ()
        validation = [e.validation_accuracy for e in epochs if e.validation_accuracy is not None]
        rows.append(
            (
                name,
                _percent(figure(blended, users)),
                "-" if name == "refined" else _points(figure(blended.astype(float) - base, users)),
                f"{rand_index(study.out, setting.TRUE_K, name):.3f}",
                f"{100 * validation[0]:.1f} to {100 * max(validation):.1f}" if validation else "-",
            )
        )
    return _table(
        (
            "refinement",
            "Ind-8,Pro-8",
            "against refined",
            "adjusted Rand index",
            "held-out choices by the prototypes themselves",
        ),
        rows,
    )


def _controls(study: Study, rights: dict[tuple[str, int, int, int], Right]) -> str:
    h = jobs.SWEEP_PAIRS
    main = study.main("shipped", h)
    random = own_with(main, study.judged(jobs.RANDOM))
    rows = []
    for name, (aggregator, checked) in study.aggregators("shipped").items():
        for n in (8, 32):
            drawn = study.right_at(random, aggregator, 16, n, checked=checked)
            found = rights[name, h, 16, n]
            rows.append(
                (
                    f"{name}, {_design(16, n)}",
                    _percent(figure(found, main.users)),
                    _percent(figure(drawn, main.users)),
                    _points(figure(found.astype(float) - drawn, main.users)),
                )
            )
    text = _table(
        (f"{h} past choices", "neighbours by prototype", "drawn at random", "difference"), rows
    )
    swapped = []
    for job in jobs.SWAPPED:
        judged = study.judged(job)
        own = study.right_at(study.main("shipped", job.h), PaperAggregator(), 8, 0, checked=False)
        other = study.right_at(judged, PaperAggregator(), 8, 0, checked=False)
        none = study.right_at(study.main("shipped", 0), PaperAggregator(), 8, 0, checked=False)
        swapped.append(
            (
                str(job.h),
                *(_percent(figure(each, judged.users)) for each in (own, other, none)),
            )
        )
    return (
        text
        + "\n\n"
        + _table(("past choices, Ind-8", "the user's own", "another user's", "none"), swapped)
    )


def _options(study: Study) -> str:
    rows = []
    for evaluator in jobs.CAPS:
        for h in jobs.PAIRS:
            judged = study.main(evaluator, h)
            n = jobs.CAPS[evaluator][1]
            raw, common = (
                study.right_at(
                    judged,
                    study.shrinkage(evaluator, checked=True, scale=scale),
                    16,
                    n,
                    checked=True,
                )
                for scale in (ChainScale.RAW, ChainScale.COMMON)
            )
            rows.append(
                (
                    f"common scale per chain, {evaluator}, {h} pairs, {_design(16, n)}",
                    _percent(figure(raw, judged.users)),
                    _percent(figure(common, judged.users)),
                    _points(figure(common.astype(float) - raw, judged.users)),
                )
            )
    validation, test = (study.judged(job) for job in jobs.FOLDS)
    fitted = fit_weights(
        validation.evidence, validation.labels.tolist(), [str(u) for u in validation.users]
    )
    plain = study.right_at(study.main("shipped", 6), PaperAggregator(), 8, 0, checked=False)
    unweighted = study.right_at(test, PaperAggregator(), 8, 0, checked=False)
    weighted = study.right_at(test, fitted, 8, 0, checked=True)
    for name, rights in (("without weights", unweighted), ("with weights", weighted)):
        rows.append(
            (
                f"own chains in 3 folds, {name}, shipped, 6 pairs, Ind-8",
                _percent(figure(plain, test.users)),
                _percent(figure(rights, test.users)),
                _points(figure(rights.astype(float) - plain, test.users)),
            )
        )
    return _table(("option", "without", "with", "difference"), rows)


def _calibration(study: Study) -> str:
    rows = []
    for evaluator in jobs.CAPS:
        for checked in (False, True):
            found = calibration_of(study, evaluator, checked=checked)
            rows.append(
                (
                    evaluator,
                    NAMES[1 + checked],
                    f"{100 * found.expected_calibration_error:.1f}",
                    f"{found.log_score:.3f}",
                )
            )
    return _table(
        ("evaluator", "aggregator", "expected calibration error, points", "log score, nats"), rows
    )


# ---------------------------------------------------------------- words


def _n_users(study: Study) -> int:
    return len(set(study.main("shipped", jobs.PAIRS[0]).users.tolist()))


def _coverage(study: Study) -> float:
    passes = [study.main(evaluator, h) for evaluator in jobs.CAPS for h in jobs.PAIRS]
    return float(np.mean([judged.evidence.own.present.any(axis=1).mean() for judged in passes]))


def _design(m: int, n: int) -> str:
    return f"Ind-{m}" + (f",Pro-{n}" if n else "")


def _percent(found: Figure) -> str:
    return f"{100 * found.mean:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _points(found: Figure) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rewrite(page: Path, parts: dict[str, str]) -> None:
    """Replace what stands between `<!-- NAME -->` and `<!-- end -->`."""
    text = page.read_text("utf-8")
    for name, part in parts.items():
        marker = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marker.search(text):
            raise SystemExit(f"{page} has no place for the table {name!r}")
        text = marker.sub(lambda found, part=part: f"{found[1]}\n{part}\n\n{found[2]}", text)  # type: ignore[misc]
    page.write_text(text, "utf-8")
