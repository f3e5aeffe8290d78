"""Imports go downwards, and the core stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pgenrm

SRC = Path(pgenrm.__file__).parent

LAYERS = [
    {"errors"},
    {"types", "seeding", "untrusted", "cache_file", "batches"},
    {"history", "rows", "accuracy", "evaluator", "neighbours"},
    {"engines", "chain", "prompts", "scaling"},
    {"budget", "few_shot"},
    {"llm", "attributes"},
    {"case", "criteria", "prototypes"},
    {"verdict"},
    {"judge"},
    {"runs", "sim"},
    {"nano"},
    {"data", "train"},
    {"methods"},
    {"bench"},
    {"report"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: i for i, layer in enumerate(LAYERS) for name in layer}


def package_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "pgenrm" and len(parts) > 1 else None


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda p: str(p.relative_to(SRC)))
def test_imports_go_downwards(path: Path) -> None:
    own = path.relative_to(SRC).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(path):
        target = package_of(module)
        if target is not None and target != own:
            assert LEVEL[target] < LEVEL[own], f"{path} imports {module}"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("module", ["pgenrm", "pgenrm.cli", "pgenrm.prototypes"])
def test_the_core_loads_nothing_heavy(module: str) -> None:
    heavy = {
        *("torch", "pandas", "transformers", "openai", "sklearn", "datasets", "trl", "fastapi"),
        *("faiss", "sentence_transformers", "matplotlib", "safetensors"),
    }
    assert not loaded_by(f"import {module}") & heavy
