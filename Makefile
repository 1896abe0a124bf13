# `make demo` needs the light install alone, without PyTorch; `make test` everything.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV   ?= .venv
OUTPUT ?= output
JOBS   ?= 2
BIN    := $(VENV)/bin
MADE   := $(VENV)/.made
LIGHT  := $(VENV)/.light
FULL   := $(VENV)/.full

SHELL := bash

.DEFAULT_GOAL := help
.PHONY: help setup demo test pytest lint docs clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(FULL) ## create .venv and install the package with everything, tests included
	@echo "Ready: $(BIN)/diffusionpose --help"

demo: $(LIGHT) ## find the poses in a photograph and a drawing; pictures and JSON land in output/
	@$(BIN)/diffusionpose demo --output $(OUTPUT)

test: $(FULL) ## lint and all tests, side by side
	@$(MAKE) --no-print-directory -j2 lint pytest

# The tests start many interpreters. uv installs no bytecode; without it each of them compiles PyTorch for 12 seconds.
pytest: $(FULL) ## all tests
	@echo "Running the tests"
	@PYTHONDONTWRITEBYTECODE= PYTHONPYCACHEPREFIX=$(abspath $(VENV))/bytecode $(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope --no-loadscope-reorder

lint: $(FULL) ## ruff, mypy and the floors
	@echo "Checking style, types and floors"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

docs: $(FULL) ## build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "Ready: site/index.html"

clean: ## remove .venv, output and caches
	rm -rf $(VENV) $(OUTPUT) build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

# uv makes the environment in a second, where it is there, and venv in eight of processor time.
# Where Python comes without ensurepip (Debian without python3-venv), its own pip fills the environment.
$(MADE):
	@command -v $(PYTHON) >/dev/null || { \
	  echo "DiffusionPose needs Python 3.11 or newer, and there is no '$(PYTHON)' here." \
	       "Install it, or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "DiffusionPose needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." \
	       "Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$($(PYTHON) -V)"
	@UV_PYTHON_DOWNLOADS=never uv venv --seed --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV) \
	    >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
	  || { $(PYTHON) -m venv --without-pip $(VENV) \
	       && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; } >/dev/null 2>&1 \
	  || { rm -rf $(VENV); \
	       echo "'$(PYTHON) -m venv $(VENV)' failed. On Debian and Ubuntu: apt install python3-venv" \
	            "(or python3-pip), then run make again." >&2; exit 1; }
	@touch $@

# uv, which is in .venv for the time it takes where the machine has none, installs in a third of pip's time; where it
# cannot (no network to it, say), pip does. Keyed on pyproject.toml: a change there installs again, in seconds
# when little has changed. No version is named here: torch and torchvision must resolve as a pair.
define install
	@uv=$$(command -v uv || { $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --target $(VENV)/uv uv >/dev/null 2>&1 && echo $(VENV)/uv/bin/uv; }); \
	{ [ -n "$$uv" ] && UV_PYTHON_DOWNLOADS=never "$$uv" pip install --quiet --python $(BIN)/python -e '$(1)' 2>$(VENV)/install.log; } \
	  || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '$(1)' 2>$(VENV)/install.log \
	  || { tail -n 20 $(VENV)/install.log >&2; \
	       echo "Installing failed; the log is $(VENV)/install.log. Run make again to try again." >&2; exit 1; }
	@rm -rf $(VENV)/uv
endef

$(LIGHT): pyproject.toml | $(MADE)
	@echo "Installing the package and what it needs"
	$(call install,.)
	@touch $@

$(FULL): pyproject.toml | $(MADE)
	@echo "Installing the package and everything it can use (PyTorch is several GB: minutes, the first time)"
	$(call install,.[dev])
	@touch $(LIGHT) $@
