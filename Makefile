# Every target makes what it needs in .venv, and does so again only when pyproject.toml or
# constraints.txt changed. PYTHON names the interpreter that .venv is made from.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
DEMO_READY := $(VENV)/.demo-ready
DEV_READY := $(VENV)/.dev-ready
BENCH := .venv-bench
BENCH_READY := $(BENCH)/.ready
PLUGINS := $(patsubst %/pyproject.toml,%,$(wildcard plugins/*/pyproject.toml))
INPUTS := pyproject.toml constraints.txt $(addsuffix /pyproject.toml,$(PLUGINS))
TYPED := $(wildcard sentra_kms tests examples benchmarks conftest.py docs/conf.py)
NEWER := 3.12 3.13 3.14
COVERAGE := 95

.PHONY: help demo test test-newer quick soak bench lint format docs dist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO_READY) ## real work on the built-in local backend, step by step
	@$(BIN)/python examples/demo.py

test: $(DEV_READY) ## everything, with branch coverage; the core on newer Pythons, too
	@$(BIN)/python -m tests.servers.vault_binary
	@MAKEFLAGS= $(BIN)/python -m tests.everything "$(NEWER)" --fail-under=$(COVERAGE)

test-newer: $(DEV_READY) ## the core's tests on each newer Python that is installed
	@present=(); discover=(); absent=(); \
	for version in $(NEWER); do \
	  found=; \
	  for candidate in "python$$version" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/"$$version".*/bin/"python$$version"; do \
	    if "$$candidate" -c 'import venv' >/dev/null 2>&1; then found="$$candidate"; fi; \
	  done; \
	  if [ -z "$$found" ]; then absent+=("$$version"); continue; fi; \
	  present+=("py$${version/./}"); \
	  discover+=("$$("$$found" -c 'import sys; print(sys.executable)')"); \
	done; \
	if [ "$${#present[@]}" -gt 0 ]; then \
	  echo "On newer Pythons these are left out, which $$($(BIN)/python --version) is tested with: servers, the" \
	    "command line, kills and errors at system calls, random walks, bytes changed a million times, backends" \
	    "and demos with a mistake in them; and soak tests are a quarter as long."; \
	  $(BIN)/tox run --skip-missing-interpreters false \
	    -e "$$(IFS=,; echo "$${present[*]}")" --discover "$${discover[@]}"; \
	fi; \
	if [ "$${#absent[@]}" -gt 0 ]; then \
	  echo "Not tested, these Pythons are not installed here: $${absent[*]}"; \
	fi

quick: $(DEV_READY) ## the core's tests without servers, slow ones and coverage
	@$(BIN)/python -m pytest -m "not server and not slow"

soak: $(DEV_READY) ## the tests marked soak at full length; SENTRA_SOAK_SEED=N does a run again
	@SENTRA_SOAK=1 $(BIN)/python -m pytest -m soak -rP --durations=0 --durations-min=1

bench: $(BENCH_READY) ## what the hot paths cost beside other libraries, in one run of some 3 minutes
	@$(BENCH)/bin/python -m benchmarks

lint: $(DEV_READY) ## ruff, mypy, pyright, the import floors, and the documentation's build
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy $(TYPED)
	@for plugin in $(PLUGINS); do $(BIN)/mypy "$$plugin"/sentra_kms_* "$$plugin"/tests; done
	@PATH="$(CURDIR)/$(BIN):$$PATH" pyright
	@PATH="$(CURDIR)/$(BIN):$$PATH" pyright --ignoreexternal --verifytypes sentra_kms
	@$(BIN)/lint-imports
	@$(MAKE) docs

format: $(DEV_READY) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(DEV_READY) ## the documentation, in docs/_build/html
	@$(BIN)/sphinx-build --fail-on-warning --keep-going --quiet -b html docs docs/_build/html

dist: $(DEV_READY) ## wheels and sdists of core and plugins in dist/; publishes nothing
	@rm -rf dist
	@for project in . $(PLUGINS); do $(BIN)/python -m build --outdir dist "$$project"; done

clean: ## remove what these targets made
	rm -rf $(VENV) $(BENCH) .tox dist build docs/_build .coverage .coverage.* htmlcov \
	  .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "There is no $(PYTHON) here. Name a Python of 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sentra_kms needs Python 3.11 or newer, and $(PYTHON) is $$("$(PYTHON)" --version 2>&1)." >&2; \
	  echo "Name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make virtual environments (on Debian: apt install python3-venv)." >&2; exit 1; }

# Only what the demo runs, so that a newcomer waits little.
$(DEMO_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing sentra_kms and its command line into $(VENV) ..."
	@$(PIP) install -c constraints.txt -e '.[cli]'
	@touch $@

# A pip that knows dependency groups first: Python 3.11 brings an older one.
$(DEV_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing sentra_kms and the tools of this repository into $(VENV) ..."
	@$(PIP) install -c constraints.txt 'pip>=25.3'
	@$(PIP) install -c constraints.txt --build-constraint constraints.txt -e '.[all]' --group dev $(addprefix -e ./,$(PLUGINS))
	@touch $(DEMO_READY) $@

# Peers have an environment of their own, so that no test ever runs beside them.
$(BENCH_READY): $(INPUTS) | $(BIN)/python
	@echo "Installing sentra_kms and the libraries that it is measured against into $(BENCH) ..."
	@"$(PYTHON)" -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt 'pip>=25.3'
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install -c constraints.txt \
	  --build-constraint constraints.txt -e . --group bench $(addprefix -e ./,$(PLUGINS))
	@touch $@
