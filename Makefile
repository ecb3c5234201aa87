# make repro · make test · make lab; the rest: notebooks, site, bench, gpu, night, realtext, arithmetics, mutants, publish, lock, clean.
# PREFIX: an environment of your own (conda: PREFIX=$CONDA_PREFIX). PROFILE: smoke, gpu or your own; none: params.yaml's.
PREFIX ?= .venv
PROFILE ?=
# The first that fits: a system's own python3, else one with its version in its name.
FITS = 'import sys; sys.exit(not (3, 11, 5) <= sys.version_info < (3, 15))'
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.14 python3.11; do \
  $$p -c $(FITS) 2>/dev/null && echo $$p && break; done),python3)
BIN = $(PREFIX)/bin
STAMP = $(PREFIX)/.farcontext-installed
PIP = $(BIN)/python -m pip --disable-pip-version-check -q
TORCH = $(shell sed -n 's/^ *"\(torch==[0-9.]*\)".*/\1/p' pyproject.toml)
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: install repro test lab notebooks site bench gpu night realtext arithmetics mutants publish lock clean

install: $(STAMP)

# --no-deps with a whole lock: pip resolves nothing. torch is not in the lock (its builds differ in hash): pinned by version.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c $(FITS) || \
	  { echo "farcontext: PYTHON = $(PYTHON): expected Python 3.11.5 to 3.14 (make PYTHON=/path/to/python3)" >&2; exit 2; }
	@echo "Installing the locked packages into $(PREFIX): about 3 minutes, 2.5 GB (once)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(PREFIX)
	$(PIP) install --no-deps --require-hashes -r requirements.lock
	$(PIP) install $(TORCH)
	$(PIP) install --no-deps --no-build-isolation -e .
	@$(BIN)/python -m pip check
	@touch $@

repro: $(STAMP)
	@farcontext repro $(if $(PROFILE),--profile $(PROFILE))

# The data stages first (here, in lab and in notebooks): all read the corpus and the checkpoint. Skipped when nothing changed.
# In the order given: a study's tests, the smoke pipeline and the notebooks ask for the same runs, so never at once.
test: $(STAMP)
	@farcontext repro tokenizer smollm2
	@pytest -n 2 --dist loadfile --no-loadscope-reorder

lab: $(STAMP)
	@farcontext repro tokenizer smollm2
	@jupyter lab notebooks

notebooks: $(STAMP)
	@farcontext repro tokenizer smollm2
	@farcontext notebooks

# HTML below build/site, from what is published and what the last run made.
site: $(STAMP)
	@farcontext site

bench: $(STAMP)
	@for script in $$(grep -l __main__ benchmarks/*.py | grep -v -e /gpu -e /beyond); do python $$script || exit 1; done

# On one CUDA card, with this environment's python or, where there is none, the machine's: torch (CUDA) and xformers suffice.
gpu:
	@python3 benchmarks/gpu.py $(ARGS)

# The studies at several times the budget, resumable; `farcontext publish --profile night` records what it made.
night: $(STAMP)
	@farcontext repro --profile night

# More real texts by URL (FARCONTEXT_DATA_MIRROR=FOLDER: from a folder), into tables that no verdict reads.
realtext: $(STAMP)
	@farcontext repro tokenizer smollm2
	@farcontext realtext

# The studies again as a CPU without AVX and one with AVX2 would compute them: hours.
arithmetics: $(STAMP)
	@farcontext repro tokenizer smollm2
	@farcontext arithmetics

# Faults planted one at a time, and what notices them: hours, resumable (ARGS: --most N, --of nn/).
mutants: $(STAMP)
	@farcontext repro tokenizer smollm2
	@python tests/mutants/planting.py $(ARGS)

publish: $(STAMP)
	@farcontext publish

lock:
	uv pip compile pyproject.toml --extra dev --extra scale --universal --python-version 3.11.5 --generate-hashes \
	  --no-emit-package torch -o requirements.lock

clean:
	rm -rf build .farcontext
