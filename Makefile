# Everything people type. Each target sets up what it needs; check targets never rewrite a file.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready

help:  ## show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

setup: $(READY)  ## make the virtual environment .venv (done by itself where needed, again when pyproject.toml changes)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, $(PYTHON) is older")'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

test: $(READY)  ## run the test suite (under two minutes on two cores)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

test-thorough: $(READY)  ## run the suite with 1,000 examples a property
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --hypothesis-profile=thorough $(ARGS)

test-random: $(READY)  ## run the suite in random order; ARGS=--randomly-seed=1 repeats one
	$(BIN)/python -m pytest -n 2 --dist worksteal -p randomly $(ARGS)

test-gpu: $(READY)  ## hold the contract on a CUDA device, TF32 off
	@$(BIN)/python -m pytest -q --device cuda tests/test_contract.py $(ARGS)

coverage: $(READY)  ## measure lines and branches: all of components/, at least 90 % of scripts/
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --cov --cov-report= $(ARGS)
	$(BIN)/coverage report --include 'components/*' --fail-under 100
	$(BIN)/coverage report --include 'scripts/*' --fail-under 90

lint: $(READY)  ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(READY)  ## check types, strictly in components/
	$(BIN)/mypy

format: $(READY)  ## rewrite files to the style that lint checks
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)  ## time the components and the data path
	$(BIN)/python -m pytest benchmarks -q $(ARGS)

bench-smoke: $(READY)  ## run every benchmark once, untimed
	$(BIN)/python -m pytest benchmarks -q --benchmark-disable $(ARGS)

# the flags of a run that have a variable of their own: make train-stn DATA=digits EPOCHS=5
FLAGS = $(foreach flag,DATA EPOCHS RECIPE SEED OUT RESUME,$(if $($(flag)),--$(shell echo $(flag) | tr A-Z a-z) '$($(flag))'))

# PROCESSES=2 is for one process a GPU, or two on a CPU
RUN = $(BIN)/$(if $(PROCESSES),torchrun --standalone --nproc-per-node $(PROCESSES),python)

train-stn: $(READY)  ## train a spatial transformer network; DATA= EPOCHS= RECIPE= SEED= OUT= RESUME= PROCESSES= ARGS="--more flags"
	@$(RUN) -m scripts.train_stn $(FLAGS) $(ARGS)

train-vit: $(READY)  ## train a Vision Transformer; the same, and WEIGHTS=
	@$(RUN) -m scripts.train_vit $(FLAGS) $(if $(WEIGHTS),--weights '$(WEIGHTS)') $(ARGS)

contract: $(READY)  ## write the table component x contract in tests/README.md anew
	$(BIN)/python -m tests.table

tables: $(READY)  ## write the result tables in README.md anew from scripts/results/
	$(BIN)/python -m scripts.tables

pictures: $(READY)  ## draw the pictures of the pages anew
	$(BIN)/python -m scripts.pictures

clean:  ## remove the virtual environment and caches; data/ and runs/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup test test-thorough test-random test-gpu coverage lint typecheck format bench bench-smoke \
	train-stn train-vit contract tables pictures clean
