"""Data sets with one interface: users, comparisons, splits, revision. See docs/datasets.md."""

from pgenrm.data.checks import Check
from pgenrm.data.dataset import SPLITS, Dataset, draw
from pgenrm.data.lampqa import Candidate, LampItem, LampQa, load_lampqa
from pgenrm.data.load import NAMES, load
from pgenrm.data.report import CheckReport, check
from pgenrm.data.simulated import world_dataset

__all__ = [
    "NAMES",
    "SPLITS",
    "Candidate",
    "Check",
    "CheckReport",
    "Dataset",
    "LampItem",
    "LampQa",
    "check",
    "draw",
    "load",
    "load_lampqa",
    "world_dataset",
]
