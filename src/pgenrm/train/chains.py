"""The SEC data set: two prompt-completion sets of evaluation chains (paper, section 3.2: PSI).

`OUT/work/attempts.jsonl` takes one line per comparison as soon as it is done, so that a run that is
killed goes on where it was; what it has found by then, and in the end, is what an uninterrupted run
finds. When all is asked, `with_criteria.parquet`, `history_only.parquet`, `card.json` and `card.md`
are written from it.

Deliberately left out: repair of chains that are not right, and a second opinion on those that are.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pgenrm.batches import batched, in_order
from pgenrm.errors import EngineError, InputError, MissingExtraError, RowError
from pgenrm.evaluator import Evaluator
from pgenrm.prompts import Template
from pgenrm.rows import explain
from pgenrm.runs import check_settings, lock, whole_lines
from pgenrm.seeding import derive_seed
from pgenrm.train.chain_card import CardBuilder, ChainCard, Unusable, markdown
from pgenrm.train.sec import ChainSettings, Sampled, sample_chains
from pgenrm.train.sec_rows import Place, places, rows, surplus, write_parquet
from pgenrm.types import Comparison
from pgenrm.verdict import digest

Teachers = Callable[[float], Evaluator]
"""From a temperature to an evaluator; one without a temperature may always be the same."""

ATTEMPTS: Final = "work/attempts.jsonl"


def write_chains(
    teachers: Teachers,
    comparisons: Iterable[Comparison],
    out: str | Path,
    settings: ChainSettings | None = None,
    *,
    template: Template | None = None,
    recorded: Mapping[str, Any] | None = None,
    retry_lost: bool = False,
    batch_size: int = 32,
    n_workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> ChainCard:
    """Let a teacher write chains for labelled comparisons, keep the right ones, write the sets.

    Run again with the same arguments, it goes on; with more comparisons, it adds them.

    Args:
        teachers: called once per temperature of the settings; any evaluator will do. Whoever made
            them closes them.
        comparisons: those without a label, and others that nothing can be learnt from, are left
            out and counted in the card.
        out: directory; made when missing.
        settings: what is asked for and kept; None takes the defaults.
        template: of the prompts that the chains are to be learnt with; None takes `chain_signals`
            and `chain_history`.
        recorded: JSON values that say what else the chains depend on; a run goes on only under the
            same ones, and the card shows them.
        retry_lost: ask again about comparisons for which a request failed.
        batch_size: comparisons handed to a teacher at once; moves no result.
        n_workers: batches under way at once; None asks the teacher. Moves no result.
        progress: called with the number of comparisons done, those of earlier runs included.

    Raises:
        MissingExtraError: `datasets` is not installed.
        InputError: `out` holds chains of other settings or comparisons, another process writes to
            it, or no comparison is usable.
        RowError: a line of the work file is damaged, or a comparison is.
        EngineError: no chain at all was kept; the card is written all the same.
    """
    _need_datasets()
    settings = settings or ChainSettings()
    out = Path(out)
    evaluators = [teachers(temperature) for temperature in settings.temperatures]
    teacher = evaluators[0].name
    depends_on = {
        **settings.model_dump(mode="json"),
        "teacher": teacher,
        "template": template.version if template else None,
        **(recorded or {}),
    }
    usable = _Usable()
    sample = partial(sample_chains, teachers=evaluators, settings=settings, template=template)
    with _Attempts(out / ATTEMPTS, depends_on, retry_lost=retry_lost) as attempts:
        if progress:
            progress(len(attempts))
        open_ones = attempts.remaining(usable.among(comparisons))
        for batch in in_order(
            batched(open_ones, batch_size), sample, n_workers or evaluators[0].workers
        ):
            for sampled in batch:
                attempts.add(sampled)
            if progress:
                progress(len(attempts))
        if not usable.ids:
            raise InputError(f"no comparison can be learnt from: {usable.why_not()}")
        return _finish(out, attempts, usable, settings, depends_on)


# ---------------------------------------------------------------- what goes in


@dataclass
class _Usable:
    """Picks the comparisons that a chain can be right about."""

    ids: list[str] = field(default_factory=list)
    left_out: dict[Unusable, int] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)

    def among(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        for comparison in comparisons:
            reason = self._unusable(comparison)
            if reason is None:
                self.ids.append(comparison.id)
                yield comparison
            else:
                self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def _unusable(self, comparison: Comparison) -> Unusable | None:
        responses, label = comparison.responses, comparison.label
        if label is None:
            return Unusable.NO_LABEL
        if len(responses) < 2:
            return Unusable.ONE_RESPONSE
        if responses.count(responses[label]) > 1:
            return Unusable.SAME_TEXT
        key = _question(comparison)
        if key in self._seen:
            return Unusable.REPEATED
        self._seen.add(key)
        return None

    def why_not(self) -> str:
        found = [f"{reason.value}: {n}" for reason, n in self.left_out.items()]
        return ", ".join(found) or "there is none"


def _question(comparison: Comparison) -> int:
    """Identify who is asked to choose between what, whatever the order, case and spacing."""
    turns = [(message.role, _plain(message.content)) for message in comparison.context]
    return derive_seed(comparison.user.id, turns, sorted(map(_plain, comparison.responses)))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()


# ---------------------------------------------------------------- what was found so far


class _Attempts:
    """The comparisons that are done, one a line; of several lines for one the last counts."""

    def __init__(self, path: Path, settings: dict[str, Any], *, retry_lost: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        has_rows = path.exists() and path.stat().st_size > 0
        check_settings(path.with_name(path.name + ".run.json"), settings, has_rows=has_rows)
        self._path = path
        self._places: dict[str, tuple[int, str]] = {}
        """Id -> where its line begins, and the digest of the comparison."""
        self._file = path.open("ab")
        try:
            lock(self._file, path)
            end = 0
            for n, raw in whole_lines(path):
                sampled = self._parsed(raw, n)
                if retry_lost and sampled.is_lost:
                    self._places.pop(sampled.id, None)
                else:
                    self._places[sampled.id] = (end, sampled.comparison_digest)
                end += len(raw)
            self._file.truncate(end)
            self._end = end
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> "_Attempts":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._places)

    def remaining(self, comparisons: Iterable[Comparison]) -> Iterator[Comparison]:
        for comparison in comparisons:
            stored = self._places.get(comparison.id)
            if stored is None:
                yield comparison
            elif stored[1] != digest(comparison):
                raise InputError(
                    f"{comparison.id!r} has changed since {self._path} was written; "
                    "name another --out"
                )

    def add(self, sampled: Sampled) -> None:
        """Append a line; it survives a kill of this process from here on."""
        raw = sampled.model_dump_json().encode() + b"\n"
        self._file.write(raw)
        self._file.flush()
        self._places[sampled.id] = (self._end, sampled.comparison_digest)
        self._end += len(raw)

    def of(self, ids: Iterable[str]) -> Iterator[Sampled]:
        """Read back what was found, in the order of the ids."""
        with self._path.open("rb") as file:
            for name in ids:
                file.seek(self._places[name][0])
                yield self._parsed(file.readline())

    def _parsed(self, raw: bytes, n: int | None = None) -> Sampled:
        try:
            return Sampled.model_validate_json(raw)
        except ValidationError as error:
            reason = explain(error, Sampled) + "; remove the line, or name another --out"
            raise RowError(f"{self._path}:{n or '?'}", reason) from error


# ---------------------------------------------------------------- what comes out


def _finish(
    out: Path,
    attempts: _Attempts,
    usable: _Usable,
    settings: ChainSettings,
    depends_on: Mapping[str, Any],
) -> ChainCard:
    builder = CardBuilder(settings.sets)
    kept: list[Place] = []
    for sampled in attempts.of(usable.ids):
        builder.add(sampled)
        kept += places(sampled)
    leaving = surplus(kept, settings.seed)
    name, seed = depends_on["teacher"], settings.seed
    for kind in settings.sets:
        of_set = chain.from_iterable(
            rows(sampled, kind, without=leaving, teacher=name, seed=seed)
            for sampled in attempts.of(usable.ids)
        )
        write_parquet(out / f"{kind}.parquet", builder.counted(kind, of_set))
    card = builder.card(dict(depends_on), usable.left_out)
    _replace(out / "card.json", card.model_dump_json(indent=2) + "\n")
    _replace(out / "card.md", markdown(card))
    if not any(one.n_rows for one in card.sets):
        raise EngineError(f"{_why_empty(card, builder)}; see {out / 'card.md'}")
    return card


def _why_empty(card: ChainCard, builder: CardBuilder) -> str:
    if any(one.total.n_kept for one in card.sets):
        return (
            "chains were kept only where the chosen response stood at some positions and not at "
            "others, so that no balanced set is left; give more comparisons, or another teacher"
        )
    last = f"; the last failure: {builder.last_failure}" if builder.last_failure else ""
    return f"no chain was kept{last}"


def _replace(path: Path, text: str) -> None:
    partial_path = path.with_name(path.name + ".partial")
    partial_path.write_text(text, "utf-8")
    partial_path.replace(path)


def _need_datasets() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("train", "writing chains") from error
