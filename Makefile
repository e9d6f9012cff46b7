# make demo and make test work on a machine with only Python >= 3.11, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow lint fuzz bench clean

demo: $(VENV)/installed
	$(BIN)/cascade demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Every target gets FUZZ_SECONDS: `make fuzz FUZZ_SECONDS=3600` for an hour each.
FUZZ_SECONDS ?= 60

fuzz: $(VENV)/installed
	@failed=0; for target in $(basename $(notdir $(wildcard tests/fuzz/fuzz_*.py))); do \
		$(BIN)/python -m tests.fuzz.$$target --seconds $(FUZZ_SECONDS) || failed=1; \
	done; exit $$failed

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.case

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
