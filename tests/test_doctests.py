import doctest
import importlib
import pkgutil

import pytest

import pgenrm

MODULES = [m.name for m in pkgutil.walk_packages(pgenrm.__path__, "pgenrm.")]


@pytest.mark.parametrize("name", [n for n in MODULES if not n.endswith("__main__")])
def test_examples_in_docstrings_are_right(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
