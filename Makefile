# One command for each chore. Everything happens in .venv, made from python3.11 or newer.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
# How many test processes run at a time; each starts stores of its own.
JOBS ?= 2

.PHONY: help install run test lint types format bench clean

help:  ## list the chores
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The stamps follow pyproject.toml, so that a changed dependency is installed by the next chore.
.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Hermod needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python3)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.service: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.tests: .venv/bin/python pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ .venv/.service

install: .venv/.service  ## install the service into .venv

run: .venv/.service  ## serve on http://127.0.0.1:8888 with SQLite in ./hermod-data
	$(BIN)/hermod serve $(ARGS)

test: .venv/.tests  ## run all tests; choose some with ARGS="-k claim"
	$(BIN)/pytest -n $(JOBS) --dist worksteal $(ARGS)

lint: .venv/.tests  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.tests  ## check types
	$(BIN)/mypy

format: .venv/.tests  ## mend style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/.tests  ## measure every workload for a moment, then the goals, on every store that is to be had
	$(BIN)/hermod bench workloads
	$(BIN)/hermod bench goals $(ARGS)

clean:  ## remove what the chores made, but no data
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
