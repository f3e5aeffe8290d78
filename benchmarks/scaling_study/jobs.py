"""Which passes the study makes: everything that the tables read."""

from benchmarks.scaling_study.gather import Job
from benchmarks.scaling_study.setting import REFINEMENTS, TRUE_K

CAPS = {"shipped": (32, 32), "fitted": (16, 16)}
"""Own and neighbours' chains per comparison."""
PAIRS = (1, 3, 6)
WITHOUT_HISTORY = ("shipped",)
"""Evaluators that are also tried on users without any past choice, with 8 own chains."""
SWEEP_PAIRS, SWEEP_N = 3, 8
SWEEP_K = (5, 10, TRUE_K, 2 * TRUE_K, 4 * TRUE_K)


def main_job(evaluator: str, h: int, split: str) -> Job:
    m, n = CAPS[evaluator]
    return Job("main", evaluator, h, min(m, 8) if h == 0 else m, n, split)


def stated_job(split: str) -> Job:
    return Job("stated", "shipped", 0, 8, 32, split, statements=True)


def own_only(h: int) -> Job:
    return Job("own", "shipped", h, 8, 0)


def at_k(k: int) -> Job:
    return Job("k", "shipped", SWEEP_PAIRS, 0, SWEEP_N, k=k)


def refined_as(name: str) -> Job:
    return Job("refinement", "shipped", SWEEP_PAIRS, 0, SWEEP_N, refinement=name)


RANDOM = Job("random", "shipped", SWEEP_PAIRS, 0, 32, neighbours="random")
SWAPPED = [Job("swapped", "shipped", h, 8, 0, history="another user's") for h in (3, 6)]
FOLDS = [Job("folds", "shipped", 6, 8, 0, split, n_folds=3) for split in ("validation", "test")]

JOBS = [
    *(
        main_job(evaluator, h, split)
        for evaluator in CAPS
        for h in ((0, *PAIRS) if evaluator in WITHOUT_HISTORY else PAIRS)
        for split in ("validation", "test")
    ),
    *(stated_job(split) for split in ("validation", "test")),
    *(own_only(h) for h in (2, 4)),
    *(at_k(k) for k in SWEEP_K if k != TRUE_K),
    *(refined_as(name) for name in REFINEMENTS),
    RANDOM,
    *SWAPPED,
    *FOLDS,
]
STORES = {
    (job.evaluator, job.k, job.refinement) for job in JOBS if job.n and job.neighbours != "random"
}
