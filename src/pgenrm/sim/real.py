"""Simulated users over given responses: what they choose follows measured attributes.

The features of a response are its measured attributes (`pgenrm.attributes`) in the order of
`ATTRIBUTES`, so the same population, observer and files serve given and simulated texts. The rows
are held in memory.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Final

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field

from pgenrm.attributes.measure import ATTRIBUTES as MEASURABLE
from pgenrm.attributes.measure import measure
from pgenrm.attributes.scenario import classify
from pgenrm.errors import InputError, RowError
from pgenrm.rows import read_values
from pgenrm.sim.source import Draft, is_held_out
from pgenrm.sim.tastes import ATTRIBUTES, MEASURED, SCENARIOS, Array
from pgenrm.types import Message, NonEmpty, Value

N_CANDIDATES: Final = 8
"""Pairs looked at for a comparison: the farthest apart is a wide one, the nearest a narrow one."""

_COLUMNS: Final = [
    [a.name for a in MEASURABLE].index(MEASURED[name]) for name in ATTRIBUTES if name in MEASURED
]


class Row(Value):
    """An instruction with the answers of several writers."""

    model_config = ConfigDict(extra="ignore")

    instruction: NonEmpty
    responses: Annotated[
        tuple[str, ...],
        BeforeValidator(lambda v: tuple(v.values()) if isinstance(v, Mapping) else v),
        Field(min_length=2),
    ]
    """Given as a list, or as an object {writer: text}."""


@dataclass(frozen=True)
class _Item:
    instruction: str
    scenario: int
    responses: tuple[str, ...]
    features: Array
    """[n_responses, n_attributes]."""


class GivenResponses:
    """The source of a world over a file of instructions and responses.

    Args:
        path: JSON Lines or JSON, `.gz` too, of rows with `instruction` and `responses`.

    Raises:
        RowError: a row is not of this shape, or has no two responses that measure differently.
        InputError: there are too few instructions to keep some for validation and test.
    """

    def __init__(self, path: str | Path) -> None:
        digest = blake2b(digest_size=4)
        self._items: dict[bool, list[_Item]] = {False: [], True: []}
        for place, row in read_values(path, Row):
            scenario, features = self.read(row.instruction, row.responses)
            if not features.std(axis=0).any():
                raise RowError(place, "no two responses measure differently; leave the row out")
            item = _Item(row.instruction, scenario, row.responses, features)
            self._items[is_held_out(row.instruction)].append(item)
            digest.update(row.model_dump_json().encode())
        n_train, n_test = (len(self._items[part]) for part in (False, True))
        if not n_train or not n_test:
            raise InputError(
                f"{path}: {n_train + n_test} instructions leave {n_train} for history and {n_test} "
                "for test; give more, a few dozen at least"
            )
        self.version = f"given responses {digest.hexdigest()}"

    def draw(self, generator: np.random.Generator, *, narrow: bool, held_out: bool) -> Draft:
        """Draw an instruction and two of its responses."""
        items = self._items[held_out]
        item = items[int(generator.integers(len(items)))]
        pairs: list[tuple[float, int, int]] = []
        while not pairs:  # some pairs of responses measure the same
            drawn = (generator.permutation(len(item.responses))[:2] for _ in range(N_CANDIDATES))
            distances = (
                (float(np.abs(item.features[a] - item.features[b]).sum()), int(a), int(b))
                for a, b in drawn
            )
            pairs = [pair for pair in distances if pair[0] > 0]
        _, first, second = min(pairs) if narrow else max(pairs)
        return Draft(
            query=item.instruction,
            scenario=item.scenario,
            responses=(item.responses[first], item.responses[second]),
            features=item.features[[first, second]],
        )

    def read(self, query: str, responses: tuple[str, ...]) -> tuple[int, Array]:
        """Classify the query and measure the responses: [n_responses, n_attributes]."""
        scenario = classify([Message(role="user", content=query)])
        features = np.zeros((len(responses), len(ATTRIBUTES)))
        for row, text in zip(features, responses, strict=True):
            row[: len(_COLUMNS)] = measure(text)[_COLUMNS]
        return SCENARIOS.index(scenario), features
