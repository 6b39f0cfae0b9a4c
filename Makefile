# The verbs of the house. `make` alone lists them. Each sets up what it needs, once: .venv for all, .cache for the tests.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell for name in python3.11 python3 python3.13 python3.12; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
READY := .venv/.ready
PATHS := src tests bench tools examples

.PHONY: help setup node demo test lint format lock docs bench crash wheel clean

help: ## list these commands
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY) ## make .venv with everything locked

$(READY): requirements-dev.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	  echo "Lowtide needs Python 3.11 or later; none was found. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Lowtide needs Python 3.11 or later; $(PYTHON) is older. Name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv || { \
	  echo "Python's venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

node:
	@command -v npm >/dev/null || { \
	  echo "The tests of the TypeScript SDK need node and npm; on Debian: apt-get install nodejs npm" >&2; exit 1; }

demo: $(READY) ## run a real batch of 1,000 requests and kill a worker in the middle
	$(BIN)/python examples/demo.py

test: node lint ## lint, then every test that takes seconds
	$(BIN)/python -m pytest -m "not long" --numprocesses auto --dist loadfile

lint: $(READY) ## format, rules, types and layers
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/ruff check $(PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## put the code into shape
	$(BIN)/ruff format $(PATHS)
	$(BIN)/ruff check --fix $(PATHS)

docs: $(READY) ## write the generated pages of docs/ again
	$(BIN)/python tools/write_docs.py

lock: ## choose the newest dependencies that pyproject.toml allows
	tools/lock

bench: $(READY) ## measure, and say what limits each figure
	@for name in bench/p[0-9]*.py; do echo "$$name"; $(BIN)/python $$name || exit 1; done

crash: $(READY) ## kill and pause everything, cut the power, walk every fault point; then audit
	@command -v strace >/dev/null || apt-get install --yes strace || { \
	  echo "The power cuts need strace; on Debian: apt-get install strace" >&2; exit 1; }
	$(BIN)/python -m tests.rig.run --kills 200 --pauses 50
	$(BIN)/python -m tests.rig.points
	$(BIN)/python -m tests.rig.power_cut

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/hatchling build -t wheel -d dist

clean: ## remove everything that these commands made
	rm -rf .venv .cache dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
