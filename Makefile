# `make test` does all the set-up itself and works again when .venv exists.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test lint types docs clean

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

test: .venv/.ready
	$(BIN)/pytest

lint: .venv/.ready
	$(BIN)/ruff check .

types: .venv/.ready
	$(BIN)/mypy

docs: .venv/.ready
	$(BIN)/python tools/behaviours.py

clean:
	rm -rf .venv
