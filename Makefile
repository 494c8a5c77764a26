# Two commands for a newcomer: `make demo` and `make test`. Each sets up what it needs in .venv, once.
PY   ?= python3
VENV ?= .venv
BIN  := $(VENV)/bin

.PHONY: help demo test waiting computing prove mutants soak fuzz bench lint types fast screenshots clean

help:
	@echo "make demo         the main job on documents, its worker killed half-way (no key, no account, no cost)"
	@echo "make test         everything that proves it: lint, types, tests, real crashes (about 13 minutes)"
	@echo "make fast         the same without the minute-long crash loops"
	@echo "make prove        the main job and every example, disturbed at every point of them"
	@echo "make mutants      27 bugs planted in the engine, one after another: the tests catch each (about 3 minutes)"
	@echo "make bench        how fast it is, beside the bare limit of this machine"
	@echo "make soak         an hour of everything that can go wrong, on both stores; MINUTES=5 SEED=7 JSON=file"
	@echo "make fuzz         five minutes of random input for all that reads any; MINUTES=5 SEED=7"
	@echo "make screenshots  docs/images/panel-*.png anew, from a real run in a real browser"
	@echo "make clean        removes .venv and what the demo and the benchmark wrote"

demo: $(VENV)/.demo
	@$(BIN)/onward demo

# Most tests wait for programs that they have started. A file stays in one lane, and there are no more lanes than small machines have cores.
LANES := -n 2 --dist loadfile

test: lint
	@$(MAKE) --no-print-directory -s -j 2 waiting computing
	@$(BIN)/python -m pytest -q -m alone

waiting: $(VENV)/.test
	@$(BIN)/python -m pytest -q $(LANES) -m "not alone and not computes"

# Beside those who wait, in the time that they leave: nice, so that nobody who counts milliseconds is disturbed.
computing: types
	@nice $(BIN)/python -m pytest -q -p no:cacheprovider -m computes >$(VENV)/computed.txt 2>&1; told=$$?; \
	  cat $(VENV)/computed.txt; exit $$told

fast: lint types
	@$(BIN)/python -m pytest -q $(LANES) -m "not slow and not alone"

lint: $(VENV)/.test
	@$(BIN)/ruff check -q . && $(BIN)/ruff format -q --check .

types: $(VENV)/.test
	@$(BIN)/mypy

prove: $(VENV)/.test
	@PYTHONPATH=tests $(BIN)/python -m proofs

mutants: $(VENV)/.test
	@PYTHONPATH=tests $(BIN)/python -m mutants $(NAMES)

bench: $(VENV)/.test
	@$(BIN)/python benchmarks/bench.py

MINUTES ?=
soak: $(VENV)/.test
	@PYTHONPATH=tests $(BIN)/python -m soak --minutes $(or $(MINUTES),60) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json $(JSON))

fuzz: $(VENV)/.test
	@PYTHONPATH=tests $(BIN)/python -m fuzz --minutes $(or $(MINUTES),5) $(if $(SEED),--seed $(SEED))

screenshots: $(VENV)/.test
	@PYTHONPATH=tests $(BIN)/python -m browser.screenshots docs/images

clean:
	@rm -rf $(VENV) onward-demo bench.json .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Debian packs `venv` apart from Python: without it, pip from outside installs into the environment.
$(VENV)/.python: Makefile
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; try: make PY=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV), once: a minute or so" >&2
	@$(PY) -m venv $(VENV) >/dev/null 2>&1 || $(PY) -m venv --clear --without-pip $(VENV)
	@touch $@

# One test file goes through a real PgBouncer, and no package of Python's brings one: root on Debian gets the system's.
APT    := DEBIAN_FRONTEND=noninteractive apt-get -qq
POOLER := PATH="$$PATH:/usr/sbin:/usr/local/sbin"; command -v pgbouncer || \
  { [ "$$(id -u)" = 0 ] && { $(APT) install -y pgbouncer || { $(APT) update && $(APT) install -y pgbouncer; }; }; } || \
  echo "no pgbouncer: tests/test_pooler.py will be skipped; apt-get install pgbouncer, or brew install pgbouncer" >&3
# The control panel is tested in the browser of the system, for the same reason; no test ever downloads one.
INSTALL := $(APT) install -y --no-install-recommends fonts-dejavu-core
CHROMIUMS := $(INSTALL) chromium-headless-shell || $(INSTALL) chromium
BROWSER := test -n "$$CHROMIUM" || command -v chromium-headless-shell || command -v chromium || command -v chromium-browser || \
  command -v google-chrome || { [ "$$(id -u)" = 0 ] && { $(CHROMIUMS) || { $(APT) update && { $(CHROMIUMS); }; }; }; } || \
  echo "no Chromium: tests/browser will be skipped; apt-get install chromium, or CHROMIUM=/path/to/one make test" >&3

# What the demo needs is small; what the tests need is not, so it comes only with them.
$(VENV)/.demo $(VENV)/.test: $(VENV)/.%: $(VENV)/.python pyproject.toml constraints.txt
	@if [ -x $(BIN)/pip ]; then pip="$(BIN)/python -m pip"; else pip="$(PY) -m pip --python $(BIN)/python"; fi; \
	  $$pip install -q --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@if [ $* = test ]; then { { $(POOLER); }; { $(BROWSER); }; } 3>&2 >/dev/null 2>&1; fi
	@touch $@
