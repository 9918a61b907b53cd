# Two commands on a fresh machine: `make paper` and `make test`. Both skip what is done.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: paper test test-all lint benchmarks clean

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

benchmarks: $(VENV)/.test
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only -s

# The stamps say for which pyproject.toml the environment was made.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q -e .[test]
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) .bench build *.egg-info
