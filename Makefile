# make demo and make test work on a machine with only Python >= 3.11, make and a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow test-openvino lint fuzz bench bench-rivals clean

demo: $(VENV)/installed
	$(BIN)/cascade demo

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

test-openvino: $(VENV)-openvino/installed
	$(VENV)-openvino/bin/python -m pytest tests/cascade/test_engine.py

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

# These write their sections of BENCHMARKS.md: see benchmarks/page.py.
bench: $(VENV)-openvino/installed
	$(BIN)/python -m benchmarks.page case profile_case beside "rate --openvino $(VENV)-openvino/bin/python" "batch --cases 12 --rounds 2 --many 200"

bench-rivals: $(VENV)-nnunet/installed
	$(BIN)/python -m benchmarks.page \
		"rivals --nnunet $(VENV)-nnunet/bin/python" "train --nnunet $(VENV)-nnunet/bin/python"

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# Whatever is not cascade's own gets an environment of its own that sees the packages of ours.
PACKAGES := import sysconfig; print(sysconfig.get_path('purelib'))

$(VENV)-nnunet/installed: WANTED := --requirement benchmarks/nnunet.txt
$(VENV)-nnunet/installed: benchmarks/nnunet.txt
$(VENV)-openvino/installed: WANTED := --constraint constraints.txt openvino openvino-telemetry

$(VENV)-%/installed: $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --disable-pip-version-check --quiet --no-deps $(WANTED)
	$(BIN)/python -c "$(PACKAGES)" > "$$($(VENV)-$*/bin/python -c "$(PACKAGES)")/ours.pth"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-nnunet $(VENV)-openvino build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
