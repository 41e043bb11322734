# Each target does all of its set-up: a machine with Python >= 3.11 (with venv and pip) and make is enough.
#   make demo    the whole chain on a small real corpus, with the encoders in this repository (no network once installed)
#   make test    the tests (make test-slow, make test-containers: the long ones)
#   make docs    the documentation        make lint    ruff, mypy, eslint        make clean    removes .venv and the caches
# PYTHON=python3.12 chooses the interpreter, WORKERS=4 the number of test processes.

PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
STAMP := $(VENV)/installed.stamp
# Container images set it; then every program that the tests start compiles this project and what it imports anew.
unexport PYTHONDONTWRITEBYTECODE
DOCS_STAMP := $(VENV)/docs.stamp

# PyPI's Linux torch brings gigabytes of CUDA libraries. Without an NVIDIA GPU pip is also shown PyTorch's own index, whose
# "+cpu" build it prefers; when that index can't be reached pip says so and goes on with what it has.
TORCH_INDEX ?= $(shell command -v nvidia-smi >/dev/null 2>&1 || echo https://download.pytorch.org/whl/cpu)
TORCH_OPTIONS := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX) --retries 1 --timeout 30)

# The linter of the report's scripts, where npm's npx can fetch it.
ESLINT := npx --yes --fetch-retries=0 --fetch-timeout=20000 eslint@10

.PHONY: demo test test-slow test-containers coverage smoke dist docs docs-links lint lint-and-docs install install-docs clean

demo: $(STAMP)
	$(VENV)/bin/medusa demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow"

# Every bit flipped, every system call failing, whole products. Some count the memory and the cores of the machine, so they run
# one after another.
test-slow: $(STAMP)
	$(VENV)/bin/python -m pytest -m slow --ignore=tests/featurestore/audio

# Every codec in every container at every rate, length and number of channels.
test-containers: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m slow tests/featurestore/audio

# The tests with the share of lines they run, which must not fall below the floor in pyproject.toml.
coverage: $(STAMP)
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" --cov --cov-report=term:skip-covered

# What another Python must be able to do: the demo, the store, the probes (make smoke PYTHON=python3.13).
smoke: $(STAMP)
	$(VENV)/bin/medusa demo --directory $(VENV)/demo-run
	$(VENV)/bin/python -m pytest -n 2 -m "not slow" tests/featurestore/store tests/featurestore/format tests/deepser/probes

# The wheel and the source distribution, in dist/, checked.
dist: $(STAMP)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[release]'
	rm -rf dist
	$(VENV)/bin/python -m build
	$(VENV)/bin/python -m twine check --strict dist/*

# The pages in docs/_build/html; every warning is an error, a link between pages that leads nowhere among them.
docs: $(DOCS_STAMP)
	$(VENV)/bin/python -m sphinx -W --keep-going -b html docs docs/_build/html

# The links to other sites; needs a network.
docs-links: $(DOCS_STAMP)
	$(VENV)/bin/python -m sphinx -b linkcheck docs docs/_build/links

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	@if $(ESLINT) --version >/dev/null 2>&1; then $(ESLINT) ensemble/report/assets; else echo "no eslint: scripts are not linted"; fi

# What continuous integration runs beside the tests, one after the other.
lint-and-docs:
	$(MAKE) lint
	$(MAKE) docs

install: $(STAMP)

install-docs: $(DOCS_STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, %s is %s; use PYTHON=python3.12" % (sys.executable, sys.version.split()[0]))'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --no-deps $(TORCH_OPTIONS) -c constraints.txt torch
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@

$(DOCS_STAMP): $(STAMP)
	$(VENV)/bin/python -m pip install -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
