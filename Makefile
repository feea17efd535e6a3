# `make demo` and `make test` set up all they need in .venv/.

export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.cache/jax
BIN := .venv/bin
NEXT := .venv-next/bin

# The first Python >= 3.11; and the first >= 3.12 if there is one, on which the tests run with the newest JAX as well.
CANDIDATES := python3.11 python3 python3.12 python3.13 python3.14 $(wildcard $(HOME)/.pyenv/versions/3.1[2-4]*/bin/python3)
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
NEXT_PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo $$p && break; done)

.PHONY: demo test test-pins test-next lint format clean

demo: .venv/installed
	$(BIN)/python -m experiments.digits

test: lint test-pins $(if $(NEXT_PYTHON),test-next)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test-pins: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-next: .venv-next/installed
	$(NEXT)/python -m pytest -n 2 --dist loadgroup -m "not long"

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "score_sde needs Python 3.11 or newer on the PATH."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv-next/installed: pyproject.toml
	$(NEXT_PYTHON) -m venv .venv-next
	$(NEXT)/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[test]'
	touch $@

clean:
	rm -rf .venv .venv-next .cache *.egg-info
