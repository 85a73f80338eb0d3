# One environment in .venv; a second run starts in seconds because the stamp is newer than pyproject.toml.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test test-system lint docs clean install
.DELETE_ON_ERROR:

demo: $(STAMP)  ## The main job on real photographs: trains, measures, fixes, reports.
	$(BIN)/fixres demo

test: $(STAMP)  ## Everything that needs no browser and no long training: about 17 minutes on two cores.
	$(BIN)/python -m pytest -m "not system" -n auto --maxprocesses 4 --dist worksteal

# A file's tests share what its first one makes, so they stay together.
test-system: $(STAMP)  ## The demo itself, a browser, a Slurm: 40 to 50 minutes on two cores.
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m system -n auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(STAMP)
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/mypy

docs: $(STAMP)  ## The pages and pictures of docs/ that are made from the code; minutes.
	$(BIN)/python -m tools.docs

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "fixres needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) -V 2>&1); make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifdef UV
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[demo,dev]'
else
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
endif
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
