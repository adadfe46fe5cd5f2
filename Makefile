# Everything runs in .venv, made here; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files of tests beside one another, and the long parts of files (tests/conftest.py), those first.
TOGETHER := -n auto --dist loadgroup --no-loadscope-reorder
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

FUZZ_SECONDS ?= 30
MINUTES ?= 30

# Tests start hundreds of processes, each of which would compile the sources of Python again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help first-hour fuzz memcheck mutants coverage soak docs test-minimum bench results bench-kernels bench-decode bench-cost bench-arm test test-mpi test-quick test-tiers test-arm test-peers wheel lint format plot clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

bench: $(VENV)/.bench ## Set up and run the main job in its quick form (minutes)
	$(BIN)/python -m bench.run --arch auto --quick

bench-kernels: $(VENV)/.bench ## Every kernel beside the machine's limits and what peers are installed
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m bench.kernels

bench-decode: $(VENV)/.bench ## The decoder beside the bandwidth and, if it is installed, llama.cpp
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m bench.decode

bench-cost: $(VENV)/.bench ## The cost model, calibrated here, beside decoding
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m bench.cost

bench-arm: $(VENV)/.bench ## ARM without ARM hardware: instructions counted, cycles simulated
	$(BIN)/python -m bench.arm

results: $(VENV)/.dev ## The tests, then every benchmark (an hour or two): leaves results/<machine>/ to send in
	$(BIN)/python -m pytest $(TOGETHER) -m "not peers and not arm and not mpi"
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.kernels
	$(BIN)/python -m bench.decode
	$(BIN)/python -m bench.cost --full

test: $(VENV)/.dev ## Set up and run the tests of this CPU's tier (ten minutes on two cores)
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m pytest $(TOGETHER) -m "not peers and not arm and not tiers and not mpi" --durations=5

test-quick: $(VENV)/.dev ## Run the tests that take no compiler for long (two minutes)
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m pytest $(TOGETHER) -m "not slow and not peers and not mpi" --durations=5

test-tiers: $(VENV)/.dev ## The tests that `make test` leaves out: every tier of this CPU, every tile, every cut
	$(BIN)/python -m pytest $(TOGETHER) -m tiers $(ONLY) --durations=5

test-arm: $(VENV)/.dev ## Check the loops for every ARM core, compare emulated CPUs' results with x86's
	$(BIN)/python -m pytest $(TOGETHER) -m arm $(ONLY)
	$(BIN)/python -m tests.arm $(CPUS)

wheel: $(BIN)/python ## A wheel with compiled kernels of every tier of this architecture (minutes)
	$(PIP) install build
	$(BIN)/python -m build

first-hour: $(BIN)/python ## Time a newcomer's first product, text, plot and server, by a wheel made here (minutes)
	rm -rf dist/first-hour
	TERNOPS_BUILD=here $(PIP) wheel --no-deps -w dist/first-hour .
	$(BIN)/python .ci/first_hour.py dist/first-hour/*.whl

test-mpi: $(VENV)/.mpi ## Compare processes that decode together with one (five minutes on two cores)
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m pytest -m mpi --durations=5

test-peers: $(VENV)/.peers ## Compare with transformers and llama.cpp
	$(BIN)/python -m pytest -m peers

test-minimum: ## Run the quick tests with the oldest packages that are allowed
	$(PYTHON) .ci/minimum.py > .venv-minimum.txt
	PIP_CONSTRAINT=$(CURDIR)/.venv-minimum.txt $(MAKE) test-quick VENV=.venv-minimum

fuzz: $(VENV)/.fuzz ## Attack whatever is read from others, FUZZ_SECONDS of each target
	$(BIN)/python -m ternops warmup
	TERNOPS_FUZZ_ORDERS=$$((20 * $(FUZZ_SECONDS))) $(BIN)/python -m pytest -q tests/fuzz/test_machine.py
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

memcheck: $(VENV)/.dev ## Run kernels under valgrind, which must be installed: no access beside an array (an hour)
	$(BIN)/python -m tests.memcheck

mutants: $(VENV)/.mutants ## Change the sources a little, many times, and see whether tests fail (90 minutes at a time)
	$(BIN)/python -m tests.mutants --minutes 90 --survivors

coverage: $(VENV)/.dev ## The lines that `make test` runs, those of compiled kernels aside
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest $(TOGETHER) -m "not peers and not arm and not tiers and not mpi"
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --fail-under 90

soak: $(VENV)/.dev ## All at once in one process for MINUTES: memory, files and threads must not grow
	$(BIN)/python -m ternops warmup
	$(BIN)/python -m tests.programs.soak --minutes $(MINUTES)

docs: $(VENV)/.docs ## Make the site in site/; a link that leads nowhere is an error
	$(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.dev ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## Put the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

plot: $(VENV)/.bench ## Draw the plots and write the reports again from the committed results
	for run in results/*/run.json; do folder=$${run%/*}; $(BIN)/python -m bench.plot $$folder && $(BIN)/python -m bench.report $$folder; done

clean: ## Remove what make has made
	rm -rf $(VENV) .venv-minimum .venv-minimum.txt fuzz-findings .mutants .coverage* site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .schemathesis

$(BIN)/python:
	@echo "making $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)

# One stamp a set of packages: a second run finds nothing to do.
$(VENV)/.bench: pyproject.toml Makefile | $(BIN)/python
	@echo "installing ternops with its benchmark packages (about a minute)"
	$(PIP) install -e '.[bench,llm]'
	@touch $@

$(VENV)/.dev: pyproject.toml Makefile | $(BIN)/python
	@echo "installing ternops with its developer tools (about a minute)"
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install -e '.[bench,llm,serve]' --group dev
	$(BIN)/python -m ternops warmup
	@touch $@

$(VENV)/.mpi: $(VENV)/.dev
	@echo "installing mpi4py and MPICH"
	$(PIP) install 'mpi4py>=4' mpich
	@touch $@

$(VENV)/.mutants: $(VENV)/.dev
	$(PIP) install 'cosmic-ray>=8.3,<9'
	@touch $@

# atheris guides what is tried; where there is no wheel of it, chance does.
$(VENV)/.fuzz: $(VENV)/.dev
	-$(PIP) install --only-binary :all: 'atheris>=3'
	@touch $@

$(VENV)/.docs: pyproject.toml Makefile | $(BIN)/python
	@echo "installing ternops with what makes its site (about a minute)"
	$(PIP) install -e '.[docs]'
	@touch $@

$(VENV)/.peers: $(VENV)/.dev
	@echo "installing torch, transformers, and llama.cpp from its source (ten minutes or more)"
	$(PIP) install 'torch==2.13.0' 'transformers>=5,<6' accelerate 'peft>=0.21,<1' 'llama-cpp-python>=0.3,<0.4' \
	    'sentence-transformers>=6,<7' 'lm-eval>=0.4.9' 'joblib>=1.4' 'dask[distributed]>=2025.1' \
	    'jax>=0.5'
	@touch $@
