# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1

.PHONY: demo test check clean

demo: .venv/.core
	$(BIN)/pgenrm demo

test: .venv/.dev
	$(BIN)/python -m pytest --cov --cov-report=term

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/bin/pip:
	$(PYTHON) -m venv .venv

.venv/.core: .venv/bin/pip pyproject.toml
	$(BIN)/pip install --quiet -e .
	touch $@

# constraints.txt pins the versions that the tests were run with where a newer one would pull much more.
.venv/.dev: .venv/.core constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
