# Every target sets up what it needs. `make help` lists them.
SHELL := /bin/bash -o pipefail
.DEFAULT_GOAL := help
PYTHON ?= python3
PORT ?= 8000
PY := .venv/bin/python
BENCH_PY := .venv-bench/bin/python
# One thread a process: two busy processes with two spinning threads each are many times slower.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

define say
@printf '\n\033[1m== %s\033[0m\n' "$(1)"
endef

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

.venv/.ready: requirements.lock pyproject.toml
	$(call say,Setting up .venv from requirements.lock (a few minutes the first time))
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "gptbook needs Python 3.11 or newer, and $(PYTHON) is older: run make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "python's venv module failed: on Debian, apt-get install python3-venv"; exit 1; }
	@$(PY) -m pip install --disable-pip-version-check --progress-bar on -r requirements.lock | grep --line-buffered -v 'already satisfied' || \
	  { test $${PIPESTATUS[0]} -eq 0 || { echo "pip could not install requirements.lock: see its message above"; exit 1; }; }
	@$(PY) -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Make .venv from requirements.lock

.PHONY: book
book: setup ## Build the site from the executed notebooks and say where it is
	$(call say,Building the site)
	@$(PY) -m book.tools.site

.PHONY: serve
serve: book ## Show the site on 127.0.0.1 (PORT=8000)
	@$(PY) -m book.tools.site --serve --port $(PORT)

.PHONY: export
export: setup ## Write gptbook/*.py from the chapters' exported cells
	@$(PY) -m book.tools.export

.PHONY: execute
execute: export ## Re-execute the chapters whose inputs changed
	$(call say,Executing the chapters whose inputs changed)
	@$(PY) -m book.tools.exercises
	@$(PY) -m book.tools.execute
	@$(PY) -m book.tools.prose --update
	@$(PY) -m book.tools.colab

.PHONY: test
test: setup ## Run every check that guards the book
	$(call say,Lint and format)
	@$(PY) -m ruff check . || { echo "ruff found problems: $(PY) -m ruff check --fix . mends most"; exit 1; }
	@$(PY) -m ruff format --check . || { echo "Unformatted files: run $(PY) -m ruff format ."; exit 1; }
	$(call say,Types)
	@$(PY) -m mypy || { echo "mypy found problems in the lines above"; exit 1; }
	$(call say,The package equals the chapters)
	@$(PY) -m book.tools.export --check
	$(call say,The exercises equal the solutions without their answers)
	@$(PY) -m book.tools.exercises --check
	$(call say,The notebooks are current)
	@$(PY) -m book.tools.execute --check
	$(call say,The notebooks give their outputs again)
	@$(PY) -m book.tools.verify
	$(call say,Numbers in the prose)
	@$(PY) -m book.tools.prose --check
	$(call say,Colab notebooks are current)
	@$(PY) -m book.tools.colab --check
	$(call say,Tests (the site included))
	@$(ONE_THREAD) $(PY) -m pytest -q -n 2 --dist loadfile

.venv-bench/.ready: tests/benchmarks/requirements.txt
	$(call say,Setting up .venv-bench with the peers)
	@$(PYTHON) -m venv .venv-bench
	@$(BENCH_PY) -m pip install --disable-pip-version-check --quiet -r $<
	@touch $@

.PHONY: bench
bench: setup .venv-bench/.ready ## Measure the package beside its peers; appends to book/results/
	$(call say,Benchmarks (keep the machine otherwise idle))
	@PYTHONPATH=. $(BENCH_PY) tests/benchmarks/bench_tokenizer.py
	@$(ONE_THREAD) $(PY) -m tests.benchmarks.bench_data
	@$(PY) -m tests.benchmarks.bench_attention
	@$(PY) -m tests.benchmarks.bench_model
	@$(PY) -m tests.benchmarks.bench_training
	@$(PY) -m tests.benchmarks.train_tinyworld

.PHONY: lock
lock: ## Pin the newest versions that pyproject.toml allows in requirements.lock
	$(call say,Resolving pyproject.toml into requirements.lock)
	@rm -rf _build/lock && $(PYTHON) -m venv _build/lock
	@_build/lock/bin/pip install --quiet --disable-pip-version-check ".[dev]"
	@# torch's own wheel asks for CUDA's packages, and only where it is built for a GPU.
	@_build/lock/bin/pip freeze --all --exclude gptbook --exclude pip | \
	  sed -E '/^(nvidia-|cuda-)/d; s/^(torch==[^+]+)\+.*/\1/; s/^(triton==.*)/\1; sys_platform == "linux" and platform_machine == "x86_64"/' > requirements.lock.new && mv requirements.lock.new requirements.lock

.PHONY: clean
clean: ## Remove what was built, but not .venv
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
