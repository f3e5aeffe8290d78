"""The settings of a simulated world; the defaults were searched for (docs/simulated-world.md)."""

from typing import Annotated

from pydantic import Field

from pgenrm.types import Value

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]


class WorldConfig(Value):
    """What kind of people and comparisons a world has. Weights are in units of log-odds."""

    # people
    n_prototypes: int = Field(default=24, ge=1)
    prototype_seed: int = 0
    """Of the prototypes alone: worlds with other users but the same prototypes differ in `seed`."""
    tail: NotNegative = 0.8
    """Prototype k, counted from 1, has a share of the users proportional to k ** -tail."""
    primary: NotNegative = 2.0
    """Weight of a prototype's first taste on an attribute with loading one."""
    secondary: NotNegative = 0.5
    """... of its second taste."""
    swap: Share = 0.15
    """Chance that in a scenario the second taste of a prototype comes before the first."""
    spread: NotNegative = 0.3
    """Standard deviation of a user's log-factor on each attribute's weight."""
    quirk_share: Share = 0.1
    """Chance that a user has a weight of his own on an attribute, whatever the prototype."""
    quirk_scale: NotNegative = 1.0
    """Standard deviation of such a weight."""
    flaw_weight: float = -3.0
    """Everybody's weight on a flawed answer, quirks apart."""
    noise: Positive = 1.0
    """Divides the margin in the choice probability."""

    # what they say of themselves
    criteria_share: Share = 0.4
    n_criteria: int = Field(default=2, ge=1, le=12)
    """How many criteria a user who states any states."""
    criteria_sharpness: NotNegative = 1.5
    """How reliably the strongest weights are the ones that are stated."""
    description_share: Share = 0.2
    description_sharpness: NotNegative = 1.5

    # comparisons
    narrow_share: Share = 0.25
    """Share of pairs that differ in a few attributes of one taste only; never shown as history."""
    coherence: Share = 0.85
    """Chance that an attribute of a response follows the side drawn for its taste."""
    flaw_share: Share = 0.05
    """Share of pairs in which one response is flawed."""
    n_train: int = Field(default=12, ge=0)
    n_validation: int = Field(default=2, ge=0)
    n_test: int = Field(default=4, ge=0)
    """Comparisons per user and split."""
    n_history: int = Field(default=6, ge=0)
    """Past choices shown inside a comparison, from the user's train split."""
    unseen_share: Share = 0.25
    """Share of users whose train split is shown as history only."""
