# `make test` does all the set-up itself and works again when .venv exists.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: test nightly bench lint types docs clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

test: .venv/.ready
	$(BIN)/pytest

nightly: .venv/.ready
	$(BIN)/pytest -m 'nightly or not nightly' --timeout 3600

bench: .venv/.ready
	$(BIN)/python bench/track.py

lint: .venv/.ready
	$(BIN)/ruff check .

types: .venv/.ready
	$(BIN)/mypy

docs: .venv/.ready
	$(BIN)/python tools/behaviours.py

clean:
	rm -rf .venv
