"""A simulated world in which the truth is known."""

from pgenrm.sim.card import Card, Group
from pgenrm.sim.config import WorldConfig
from pgenrm.sim.dataset import ComparisonTruth, UserTruth, simulate
from pgenrm.sim.observer import Reference, oracle, references
from pgenrm.sim.real import GivenResponses
from pgenrm.sim.world import Choice, Person, Split, World

__all__ = [
    "Card",
    "Choice",
    "ComparisonTruth",
    "GivenResponses",
    "Group",
    "Person",
    "Reference",
    "Split",
    "UserTruth",
    "World",
    "WorldConfig",
    "oracle",
    "references",
    "simulate",
]
