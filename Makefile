# Each target makes its own environment in .venv, from pyproject.toml, and needs nothing but Python 3.10 to 3.13.
#   make demo    export the two embedded checkpoints to three formats and classify with each engine
#   make test    style, types, every test
#   make fast    the same without the tests marked slow
#   make demo-checkpoints    train the embedded checkpoints anew, into demo-training (DATA and TEACHER: see below)
#   make android     build the Android modules and run their tests on the demo bundles (a JDK, Maven;
#                    for the chat app and its screenshots Debian's aapt and android-framework-res)
#   make check-arm   golden cases of the demo bundles, int8 and 4 bits, on Arm kernels, under emulation;
#                    BUNDLES="DIR ..." checks others
#   make fuzz    SECONDS (60) of damaged input for each reader, in Python and in Kotlin
#   make mutants     how many changes of the code no test notices (see tests/mutants: half an hour of a processor,
#                    hours beside other work); MUTANTS="data --again" asks about one group's survivors
#   make tokenizer-contract   Kotlin's tokens against Hugging Face's: every code point and text (a JDK, Maven, hours)

# The first of these that runs; 3.11 is the one that was tested most. PYTHON=... overrides the choice.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.10 python3; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
TYPED := .venv/typed/pocketbert

# SST-2's folder and a DistilBERT classifier of it, which the repository does not hold.
DATA ?= ../shared/data/sst2
TEACHER ?= ../shared/models/distilbert-l6-h384-sst2

# For how long `make fuzz` looks at each reader.
SECONDS ?= 60

# Bundles for `make check-arm`; none: the demo's.
BUNDLES ?=
FOUR_BIT_BUNDLES := $(patsubst %,four-bit-bundles/%-4-bits,distilbert albert)

# Groups of modules for `make mutants`, and its options; none: all of them.
MUTANTS ?=

.PHONY: demo demo-checkpoints test fast check android check-arm fuzz mutants tokenizer-contract clean

demo: .venv/export
	$(BIN)/python -m pocketbert.export.demo

demo-checkpoints: .venv/dev
	$(BIN)/python -m pocketbert.export.demo.train --data $(DATA) --teacher $(TEACHER) --work demo-training

test: check
	$(BIN)/python -m pytest

fast: check
	$(BIN)/python -m pytest -m "not slow"

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(dir $(TYPED)) && MYPYPATH=. $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p pocketbert

android: .venv/dev
	@test -d demo-bundles || $(BIN)/python -m pocketbert.export.demo
	$(BIN)/python tests/android_natives.py
	@echo "Compiling android_demo and running its tests: a minute or two; what is said goes to android_demo/target/build.log"
	@mkdir -p android_demo/target
	@mvn --batch-mode --quiet --file android_demo test > android_demo/target/build.log 2>&1 \
	  || { cat android_demo/target/build.log; exit 1; }
	$(BIN)/python tests/android_reports.py
	@test -d android_demo/app/target/screenshots && echo "screenshots: android_demo/app/target/screenshots" \
	  || echo "The app was not built: it needs Debian's packages aapt and android-framework-res."

check-arm: .venv/dev $(if $(BUNDLES),,$(FOUR_BIT_BUNDLES))
	@test -n "$(BUNDLES)" -o -d demo-bundles || $(BIN)/python -m pocketbert.export.demo
	$(BIN)/python tests/arm/check.py $(or $(BUNDLES),demo-bundles/* $(FOUR_BIT_BUNDLES))

four-bit-bundles/%-4-bits: | .venv/dev
	@mkdir -p $(@D)
	$(BIN)/pocketbert export export/demo/$* --out $@ --scheme dynamic_wi4_afp32 --formats tflite,executorch

fuzz: .venv/dev
	@test -d demo-bundles || $(BIN)/python -m pocketbert.export.demo
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS)

mutants: .venv/dev
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || $(BIN)/python -m pip install --quiet --editable '.[mutants]'
	$(BIN)/python tests/mutants/run.py $(MUTANTS)

tokenizer-contract: .venv/dev
	$(BIN)/python tests/tokenizer_contract.py

clean:
	rm -rf .venv build android_demo/target android_demo/*/target *.egg-info demo-bundles four-bit-bundles demo-training

.venv/export: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[export]'
	touch $@

.venv/dev: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	mkdir -p $(TYPED)
	ln -sfn $(CURDIR)/runtime/root/* $(TYPED)
	ln -sfn $(CURDIR)/export $(TYPED)/export
	ln -sfn $(CURDIR)/runtime $(TYPED)/runtime
	touch $@

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Install Python 3.10 to 3.13 first." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 14))' \
	  || { echo "$(PYTHON) is not Python 3.10 to 3.13: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv .venv
