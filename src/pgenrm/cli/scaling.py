"""What `-m`, `-n`, `--prototypes`, `--calibration` and `--adaptive` mean: parts of the judge."""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from pgenrm.cli.models import ModelEvaluator
from pgenrm.cli.stored import open_prototypes
from pgenrm.errors import InputError
from pgenrm.judge import RubricCheck
from pgenrm.neighbours import NeighbourSource, learnt
from pgenrm.scaling.aggregate import Aggregator, ChainScale, PaperAggregator
from pgenrm.scaling.calibration import Calibration
from pgenrm.scaling.shrinkage import Shrinkage
from pgenrm.scaling.stopping import StoppingRule, rounds
from pgenrm.types import Value

M: Final = 8
CAPS: Final = (16, 8)
"""Most own and neighbours' chains with --adaptive; the largest setting of the paper."""
ERROR: Final[float] = StoppingRule.model_fields["error"].default
MIN_ADAPTIVE_M: Final = 3
"""The first round takes 2 own chains; with no more there is nothing to stop."""
CALIBRATION_FILE: Final = "calibration.json"
"""Looked for in the directory of prototypes."""


class AggregatorName(StrEnum):
    """How own and neighbours' chains are combined."""

    SHRINKAGE = "shrinkage"
    PAPER = "paper"


class ScalingOptions(Value):
    """Everything of the command line that says how many chains there are and how they count."""

    m: int | None = None
    n: int | None = None
    prototypes: Path | None = None
    embedder: str | None = None
    device: str | None = None
    calibration: Path | None = None
    aggregator: AggregatorName = AggregatorName.SHRINKAGE
    scale: ChainScale | None = None
    adaptive: bool = False
    error: float | None = None
    check_rubrics: bool = False
    hold_out: int | None = None

    @property
    def asks_neighbours(self) -> bool:
        """Whether neighbours' chains are wanted, by name or by default."""
        return self.adaptive and self.prototypes is not None if self.n is None else self.n > 0


@dataclass(frozen=True)
class Scaling:
    """Arguments of the judge."""

    m: int
    n: int
    neighbours: NeighbourSource | None
    aggregator: Aggregator
    stopping: StoppingRule | None
    rubric_check: RubricCheck | None
    notes: tuple[str, ...]
    """What a person should know about them, one line each."""

    @property
    def settings(self) -> dict[str, Any]:
        """What judgments depend on, as JSON values."""
        rule = self.stopping
        return {
            "m": self.m,
            "n": self.n,
            "prototypes": self.neighbours.name if self.neighbours else None,
            "aggregator": self.aggregator.name,
            "stopping": f"error {rule.error}, rule {_fingerprint(rule)}" if rule else None,
            "rubric_check": f"{self.rubric_check.n_folds} folds" if self.rubric_check else None,
        }


def check_scaling(options: ScalingOptions) -> None:
    """Refuse options that do not go together or would be ignored.

    Raises:
        InputError: there are such options.
    """
    if options.n and options.prototypes is None:
        raise InputError(
            f"-n {options.n} needs --prototypes DIR; `pgenrm prototypes fit TRAIN --out DIR` "
            "learns them"
        )
    if options.embedder and options.prototypes is None:
        raise InputError("--embedder has no effect without --prototypes")
    if options.adaptive and options.m is not None and options.m < MIN_ADAPTIVE_M:
        raise InputError(
            f"--adaptive with -m {options.m} has nothing to stop; use {MIN_ADAPTIVE_M} or more"
        )
    if options.m == 0 and not options.asks_neighbours:
        raise InputError("-m 0 needs neighbours' chains: -n and --prototypes")
    if options.error is not None and not options.adaptive:
        raise InputError("--error has no effect without --adaptive")
    if options.error is not None and not 0 < options.error < 1:
        raise InputError(f"--error {options.error}: use a share between 0 and 1, e.g. {ERROR}")
    if options.hold_out and not options.check_rubrics:
        raise InputError("--hold-out has no effect without --check-rubrics")
    if options.check_rubrics and not options.asks_neighbours and not options.hold_out:
        raise InputError("--check-rubrics needs neighbours' chains (-n), or --hold-out 2 or more")
    if options.calibration and options.aggregator is AggregatorName.PAPER:
        raise InputError("--calibration has no effect on --aggregator paper")


def build_scaling(options: ScalingOptions, evaluator: ModelEvaluator) -> Scaling:
    """Build what the options name, once `check_scaling` has passed them.

    Raises:
        InputError: a file cannot be used, or is about another evaluator or embedder.
        MissingExtraError: the extra `prototypes` is not installed.
    """
    path = _calibration_file(options)
    calibration = _read(path, options, evaluator.name) if path else None
    m, n = _counts(options, calibration)
    if options.adaptive and m < MIN_ADAPTIVE_M:
        raise InputError(
            f"{path} was fitted with {m} own chains, which leaves --adaptive nothing to stop; "
            "leave it out, or give -m and -n"
        )
    neighbours = None
    if options.prototypes and n:
        neighbours = open_prototypes(options.prototypes, options.embedder, options.device)
        found_by = learnt(neighbours.name)
        if calibration and calibration.neighbour_source != found_by:
            raise InputError(
                f"{path} was fitted with neighbours from "
                f"{calibration.neighbour_source or 'no prototypes'}; {options.prototypes} holds "
                f"{found_by}. Move the file away to use defaults, and calibrate again on "
                "validation users judged with these prototypes"
            )
        if calibration and calibration.are_rubrics_checked != options.check_rubrics:
            instead = "leave it out" if options.check_rubrics else "add it"
            was = "was" if calibration.are_rubrics_checked else "was not"
            raise InputError(
                f"{path} {was} fitted with --check-rubrics; {instead}, or move the file away"
            )
    stopping = _stopping(options, calibration, m, n) if options.adaptive else None
    notes = []
    if options.prototypes and options.n is None and not n:
        notes.append("--prototypes is not used: -n is 0")
    if n and options.aggregator is AggregatorName.SHRINKAGE and calibration is None:
        notes.append(
            "neighbours count by default weights; `pgenrm calibrate` fits them on judgments of "
            f"validation users: --out {options.prototypes}/{CALIBRATION_FILE}"
        )
    if stopping and stopping.threshold is None:
        notes.append(
            f"no stopping rule was fitted for -m {m} -n {n} --error {stopping.error}, so that the "
            "error level rests on a normal model; `pgenrm calibrate` fits one"
        )
    return Scaling(
        m=m,
        n=n,
        neighbours=neighbours,
        aggregator=_aggregator(options, calibration),
        stopping=stopping,
        rubric_check=RubricCheck(evaluator, options.hold_out or 1)
        if options.check_rubrics
        else None,
        notes=tuple(notes),
    )


def _calibration_file(options: ScalingOptions) -> Path | None:
    """Return the calibration that is named, or that lies with the prototypes."""
    if options.aggregator is AggregatorName.PAPER:
        return None
    if options.calibration or options.prototypes is None:
        return options.calibration
    path = options.prototypes / CALIBRATION_FILE
    return path if path.exists() else None


def _read(path: Path, options: ScalingOptions, evaluator: str) -> Calibration:
    calibration = Calibration.load(path)
    if calibration.evaluator != evaluator:
        raise InputError(
            f"{path} was fitted on chains of {calibration.evaluator!r}, these are written by "
            f"{evaluator!r}; name another --calibration, or move the file away to use defaults"
        )
    if options.scale not in (None, calibration.weights.scale):
        raise InputError(
            f"{path} was fitted with --scale {calibration.weights.scale}; leave out --scale"
        )
    return calibration


def _counts(options: ScalingOptions, calibration: Calibration | None) -> tuple[int, int]:
    m, n = M, 0
    if options.adaptive:
        caps = calibration.stopping.stages[-1] if calibration else None
        m, n = (caps.m, caps.n) if caps else CAPS
        n = n if options.prototypes else 0
    return m if options.m is None else options.m, n if options.n is None else options.n


def _aggregator(options: ScalingOptions, calibration: Calibration | None) -> Aggregator:
    scale = options.scale or ChainScale.RAW
    if options.aggregator is AggregatorName.PAPER:
        return PaperAggregator(scale)
    return calibration.aggregator() if calibration else Shrinkage(scale=scale)


def _stopping(
    options: ScalingOptions, calibration: Calibration | None, m: int, n: int
) -> StoppingRule:
    """Return the fitted rule where it was fitted for the same caps and error, else a default."""
    stages = rounds(m, n)
    if calibration:
        fitted = calibration.stopping
        if fitted.stages == stages and options.error in (None, fitted.error):
            return fitted
    return StoppingRule(stages=stages, error=ERROR if options.error is None else options.error)


def _fingerprint(value: Value) -> str:
    return blake2b(value.model_dump_json().encode(), digest_size=4).hexdigest()
