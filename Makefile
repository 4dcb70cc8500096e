# Everything runs in .venv, which is made when it is missing or pyproject.toml changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test check format bench clean

help:  ## Show the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/'

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $$($(PYTHON) --version) found, Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[cpu,tensorflow,jax,data,dev]'
	touch $(READY)

setup: $(READY)  ## Make .venv and install into it

demo: $(READY)  ## The main job: train, export, prove, measure (result in demo/)
	BIN=$(BIN) scripts/demo

test: $(READY)  ## Run the tests
	$(BIN)/pytest

check: $(READY)  ## Format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)  ## Format and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Print the figures that the toolkit promises (20 minutes; wants a quiet machine)
	$(BIN)/python benchmarks/figures.py $(ONLY)

clean:  ## Remove what was made
	rm -rf .venv demo results
