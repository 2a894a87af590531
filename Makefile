# make figures    run every notebook (PROFILE=demo); results in figures/<profile>/ and
#                 notebooks/executed/<profile>/; those that are shipped stay as they are
# make test       run the tests
# make test-browser   open every notebook in JupyterLab in Chromium (Debian: apt-get install chromium)
# make lint       check style
# make clean      remove caches and everything made at the smoke profile
#
# PROFILE=smoke|demo|rehearsal|paper   ONLY="01 02"   SEEDS=5   FORCE=1   DATA_ROOT=folder of the real sets
# PYTHON=python3.12

PROFILE ?= demo
ONLY ?=
SEEDS ?=
DATA_ROOT ?=
FORCE ?=
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: figures test test-browser lint clean

figures: $(STAMP)
	$(BIN)/python -m richsem notebooks --profile $(PROFILE) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(SEEDS),--seeds $(SEEDS)) $(if $(filter-out 0 no false,$(FORCE)),--force) \
	  $(if $(DATA_ROOT),-p DATA_ROOT '$(DATA_ROOT)')

test: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-browser: $(STAMP)
	$(BIN)/uv pip install --python $(BIN)/python -c constraints.txt -e ".[test,browser]"
	$(BIN)/python -m pytest tests/notebooks/test_browser.py $(if $(ONLY),-k "$(ONLY)")

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf data/cache figures/smoke notebooks/executed/smoke .pytest_cache .ruff_cache
	find notebooks -name '*.partial.ipynb' -delete

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@echo "Installing into $(VENV): on Linux about 6 GB, most of it torch with its GPU libraries."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	$(BIN)/uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[test]"
	@touch $@
