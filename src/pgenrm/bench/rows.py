"""The rows of the table: what each method is called and what kind of thing it is."""

from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """What a method is; also the order of the table."""

    JUDGE = "LLM judges"
    TRAINED = "Trained reward models"
    OURS = "P-GenRM"
    OTHER = "Others"
    ALTERED = "With users altered"
    CONTROL = "Controls"
    REFERENCE = "References that know the truth"

    @property
    def is_baseline(self) -> bool:
        """Whether P-GenRM is to be compared with it."""
        return self in {Kind.JUDGE, Kind.TRAINED, Kind.OTHER}


class Row(NamedTuple):
    """A row of the table."""

    name: str
    kind: Kind
    label: str


ROWS: Final = (
    Row("judge-default", Kind.JUDGE, "LLM judge: default"),
    Row("judge-cot", Kind.JUDGE, "+ CoT"),
    Row("judge-demographics", Kind.JUDGE, "+ demographics"),
    Row("judge-self-description", Kind.JUDGE, "+ self-description"),
    Row("judge-stated-style", Kind.JUDGE, "+ stated style"),
    Row("judge-choice-attributes", Kind.JUDGE, "+ choice attributes"),
    Row("judge-history", Kind.JUDGE, "+ preference history"),
    Row("synthesize-me", Kind.JUDGE, "+ SynthesizeMe"),
    Row("judge-psi", Kind.JUDGE, "+ PSI prompt"),
    Row("reward-model", Kind.TRAINED, "Bradley-Terry fine-tuned RM"),
    Row("gpo", Kind.TRAINED, "GPO"),
    Row("gpo-published", Kind.TRAINED, "GPO, as published"),
    Row("vpl", Kind.TRAINED, "VPL"),
    Row("vpl-published", Kind.TRAINED, "VPL, as published"),
    Row("pal-a", Kind.TRAINED, "PAL (A)"),
    Row("pal-a-published", Kind.TRAINED, "PAL (A), as published"),
    Row("pal-b", Kind.TRAINED, "PAL (B)"),
    Row("lore", Kind.TRAINED, "LoRe"),
    Row("lore-published", Kind.TRAINED, "LoRe, as published"),
    Row("reward-model-personas", Kind.TRAINED, "FT RM + SynthesizeMe"),
    Row("pgenrm", Kind.OURS, "P-GenRM"),
    Row("pgenrm-ind8", Kind.OURS, "+ Ind-8"),
    Row("pgenrm-ind8-pro4", Kind.OURS, "+ Ind-8, Pro-4"),
    Row("pgenrm-ind8-pro4-paper", Kind.OURS, "+ Ind-8, Pro-4, equal halves"),
    Row("pgenrm-ind16-pro8", Kind.OURS, "+ Ind-16, Pro-8"),
    Row("pgenrm-adaptive", Kind.OURS, "+ up to Ind-16, Pro-8, adaptive"),
    Row("attributes", Kind.CONTROL, "Attribute evaluator, Ind-8"),
    Row("longest", Kind.CONTROL, "Longest response"),
    Row("shortest", Kind.CONTROL, "Shortest response"),
    Row("first-position", Kind.CONTROL, "First position"),
    Row("random", Kind.CONTROL, "Random"),
    Row("bayes-observer", Kind.REFERENCE, "Bayes observer"),
    Row("oracle", Kind.REFERENCE, "Oracle"),
)
PLACES: Final = {row.name: place for place, row in enumerate(ROWS)}
ALTERATIONS: Final = {"shuffled": "users shuffled", "flipped": "choices flipped"}


def row_of(name: str) -> Row:
    """Return the row of a method; one that is not known here is called by its name."""
    plain, *alterations = name.split("+")
    row = ROWS[PLACES[plain]] if plain in PLACES else Row(name, Kind.OTHER, plain)
    if not alterations:
        return row
    label = row.label.removeprefix("+ ")
    how = ", ".join(ALTERATIONS.get(a, a) for a in alterations)
    return Row(name, Kind.ALTERED, f"{label}, {how}")


def place_of(name: str) -> tuple[int, int, str]:
    """Return what the table is sorted by: kind, place in its kind, name."""
    place = PLACES.get(name.partition("+")[0], len(ROWS))
    return list(Kind).index(row_of(name).kind), place, name
