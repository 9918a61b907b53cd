# Two commands on a fresh machine: `make paper` and `make test`. Both skip what is done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: paper test test-all lint docs benchmarks clean

paper: $(VENV)/.run
	$(BIN)/python -m bench run suites/paper.toml

# Two workers of one thread each: most tests are too small to share between threads.
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --durations=15

test-all: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/python -m ruff check bench tests
	$(BIN)/python -m mypy

# The API reference, from the docstrings, into build/docs.
docs: $(VENV)/.test
	$(BIN)/python -m pdoc --docformat markdown --no-show-source -o build/docs bench bench.api bench.compat bench.recipes bench.models.classifier

benchmarks: $(VENV)/.test
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -s

# The stamps say for which pyproject.toml the environment was made.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# What the paper's suite needs beyond the core: torchattacks and AutoAttack. Another suite says itself what it misses.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .[peers]
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .[test]
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) .bench build *.egg-info
