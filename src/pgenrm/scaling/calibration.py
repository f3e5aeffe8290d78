"""Fit the aggregator and the stopping rule on the judgments of validation users.

Validation users must not be among the users whose histories serve as neighbours, nor among those
who are judged later. Their comparisons are judged once, at the largest m and n that will be used;
every smaller number of chains is a part of that.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

import numpy as np
from pydantic import ValidationError

from pgenrm.errors import InputError
from pgenrm.rows import explain
from pgenrm.scaling.aggregate import ChainScale
from pgenrm.scaling.evidence import Evidence, Ints, concatenated, evidence_of, record_of
from pgenrm.scaling.reliability import Reliability, reliability
from pgenrm.scaling.shrinkage import Shrinkage, ShrinkageWeights
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.seeding import rng
from pgenrm.types import Judgment, Value

N_PARTS: Final = 4
"""How often every comparison stands in the fit, each time with another number of chains."""
MIN_USERS: Final = 40
"""Fewer users than this settle neither the weights nor an error level."""


class Calibration(Value):
    """What validation users teach about combining and stopping."""

    evaluator: str
    """Whose chains it was fitted on."""
    weights: ShrinkageWeights
    stopping: StoppingRule
    reliability: Reliability
    """On one half of the users, with weights fitted on the other; all chains."""

    def aggregator(self) -> Shrinkage:
        """Return the fitted aggregator."""
        return Shrinkage(self.weights)

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        partial = Path(path).with_name(Path(path).name + ".partial")
        partial.write_text(self.model_dump_json(indent=1) + "\n", "utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            raise InputError(f"{path}: {explain(error, cls)}") from error


def calibrate(
    judgments: Iterable[Judgment],
    *,
    error: float = 0.02,
    scale: ChainScale = ChainScale.RAW,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Calibration:
    """Fit aggregator and stopping rule.

    Args:
        judgments: of labelled comparisons of validation users, all by one evaluator; one comparison
            may be judged several times with different amounts of history.
        error: of sequential stopping, see `StoppingRule`.
        scale: what is done to a chain's scores before averaging.
        seed: of the parts of the chains that the fit sees.
        progress: called with the log score after every step of the fit.

    Raises:
        InputError: there are too few users, or several evaluators.
    """
    usable = [j for j in judgments if j.label is not None and j.chains and len(j.scores) > 1]
    users = sorted({j.user_id for j in usable})
    evaluators = sorted({j.evaluator for j in usable})
    if len(evaluators) > 1:
        raise InputError(f"chains of several evaluators ({', '.join(evaluators)}); fit each alone")
    if len(users) < MIN_USERS:
        raise InputError(
            f"{len(users)} users with scored and labelled comparisons; {MIN_USERS} are needed"
        )
    evidence = evidence_of([record_of(judgment) for judgment in usable])
    labels = [judgment.label or 0 for judgment in usable]
    user_ids = [judgment.user_id for judgment in usable]
    m, n = _caps(evidence)
    in_half = np.isin(np.array(user_ids), _half(users, seed))
    half = _fitted(evidence, labels, user_ids, in_half, (m, n), scale, seed)
    weights = _fitted(
        evidence, labels, user_ids, np.ones_like(in_half), (m, n), scale, seed, progress
    )
    rule = StoppingRule(stages=rounds(m, n), error=error)
    return Calibration(
        evaluator=evaluators[0],
        weights=weights.weights_,
        stopping=rule.fit(evidence, user_ids, weights) if m else rule,
        reliability=_reliability(half, evidence[~in_half], np.array(labels)[~in_half]),
    )


def _caps(evidence: Evidence) -> tuple[int, int]:
    """Return the most own and neighbours' chains that any comparison has."""
    own, neighbours = evidence.own.present.sum(axis=1), evidence.neighbours.present.sum(axis=1)
    return int(own.max(initial=0)), int(neighbours.max(initial=0))


def _half(users: Sequence[str], seed: int) -> list[str]:
    shuffled = rng("calibration halves", seed).permutation(len(users)).tolist()
    return [users[i] for i in shuffled[: len(users) // 2]]


def _fitted(
    evidence: Evidence,
    labels: Sequence[int],
    user_ids: Sequence[str],
    rows: np.ndarray[tuple[int], np.dtype[np.bool_]],
    caps: tuple[int, int],
    scale: ChainScale,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Shrinkage:
    chosen = np.flatnonzero(rows)
    whole = evidence[chosen]
    designs = _designs(*caps)
    which = rng("calibration parts", seed).integers(len(designs), size=(N_PARTS, len(chosen)))
    parts, of_row = [], []
    for number, (m, n) in enumerate(designs):
        for repeat in range(N_PARTS):
            here = np.flatnonzero(which[repeat] == number)
            parts.append(whole[here].first(m, n))
            of_row.append(here)
    order: Ints = np.concatenate(of_row)
    together = concatenated(parts)
    n_chains = together.own.present.sum(axis=1) + together.neighbours.present.sum(axis=1)
    readable = n_chains > 0
    return Shrinkage(scale=scale).fit(
        together[readable],
        [labels[i] for i in chosen[order[readable]].tolist()],
        n_users=len({user_ids[i] for i in chosen.tolist()}),
        n_parts=N_PARTS,
        progress=progress,
    )


def _designs(m: int, n: int) -> list[tuple[int, int]]:
    """Return the numbers of chains that the fit sees: few and many, with and without neighbours."""
    own = sorted({min(size, m) for size in (1, 2, 4, 8, 16, m)} - {0})
    brought = sorted({min(size, n) for size in (4, 8, 16, n)} - {0})
    designs = [(size, 0) for size in own] + [(0, size) for size in brought[-1:]]
    return designs + [(a, b) for a in own if a > 1 for b in brought]


def _reliability(aggregator: Shrinkage, evidence: Evidence, labels: Ints) -> Reliability:
    probabilities = aggregator.combine(evidence).probabilities
    assert probabilities is not None
    choice = np.nan_to_num(probabilities, nan=-1.0).argmax(axis=1)
    return reliability(probabilities.max(axis=1), choice == labels)
