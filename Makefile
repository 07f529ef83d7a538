# Two commands do everything on a fresh machine: `make train` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
AZURITE := .node/node_modules/.bin/azurite-blob

.DEFAULT_GOAL := help
.PHONY: help train test test-cluster test-stores thorough soak trajectories bench bench-gpu picture lint format clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Installed anew only when the requirements have changed.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is needed; name one with make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[all,dev]'
	@touch $@

train: $(READY) ## Train the quickstart; make train ARGS="experiment=bart_cnn" for another recipe
	@$(BIN)/python train.py $(ARGS)

test: $(READY) ## Run the tests; make test ARGS="-k resume" for some of them
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal $(ARGS)

thorough: $(READY) ## Try every key of every group, each data set and what each task learns (takes minutes)
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 -m thorough $(ARGS)

soak: $(READY) ## Kill runs 300 times and searches 10 times, and flip 200 bits of what they leave (takes long)
	@$(BIN)/python -m pytest -m soak -n 2 --dist worksteal -rP $(ARGS)

test-cluster: $(READY) ## Run the tests of clusters, on a SLURM of two nodes on this machine (as root)
	@command -v slurmctld >/dev/null && command -v munged >/dev/null \
		|| { echo "error: SLURM is needed: apt-get install slurm-wlm munge" >&2; exit 1; }
	@$(BIN)/python -m pytest -m cluster tests/cluster $(ARGS)

$(AZURITE):
	@command -v npm >/dev/null || { echo "error: npm is needed, of Node 20 or newer" >&2; exit 1; }
	npm install --silent --prefix .node azurite@3.37.0

test-stores: $(READY) $(AZURITE) ## Run the tests of Azure's blob store, on an Azurite of this machine (by npm)
	@$(BIN)/python -m pytest -m stores tests/stores $(ARGS)

trajectories: $(READY) ## Record the losses that tests compare with; only where they are meant to change
	@$(BIN)/python tests/record_trajectories.py

bench: $(READY) ## Compare with Trainer; make bench ROWS="same_batches encoding" for some rows (takes long)
	@$(BIN)/python -m benchmarks $(ROWS) $(ARGS)

bench-gpu: $(READY) ## The same on a CUDA GPU, in bf16-mixed
	@$(BIN)/python -m benchmarks --gpu $(ROWS) $(ARGS)

picture: $(READY) ## Draw the README's picture of a terminal anew, from a run of the quickstart
	@$(BIN)/python docs/picture.py

lint: $(READY) ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## Put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## Remove the environment and what tools left behind; runs in logs/ stay
	rm -rf .venv .node .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
