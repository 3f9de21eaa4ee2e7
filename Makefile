# Every command a developer needs. `make demo` and `make test` need only Python 3.11 and make:
# they set up what they use (tools/setup_env.py), which takes no time when it is there already.
#
#   make PYTHON=/path/to/python3.11 ...   another Python
#   make INSTALLER=pip ...                pip although uv is there

ifndef PYTHON
override PYTHON := $(shell for candidate in python3.11 python3 python; do \
	if $$candidate -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; \
	then echo $$candidate; break; fi; done)
endif
ifeq ($(strip $(PYTHON)),)
override PYTHON := python3
endif
INSTALLER ?= auto
UV ?= uv

SETUP = $(PYTHON) tools/setup_env.py --installer $(INSTALLER)
VENV = .venv/bin
LOCKS = toolchain dev runtime-litert runtime-onnx jax mediapipe openers rival-nncf rival-aeq
# Two workers take a file each; tests/conftest.py puts the longest files first.
SPREAD = -n 2 --dist loadfile --no-loadscope-reorder
# Other slow tests run a room at a time in the order in which data flows: what breaks first, shows
# first.
SLOW_ORDER = tests/runtime tests/train tests/export tests/benchmarks tests/cli tests/end_to_end

.PHONY: help python setup demo test test-setup test-fast test-slow lint types e2e wheels boards docs lock clean

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | sed 's/|/\t/' | expand -t 20

python:
	@$(PYTHON) -c '' >/dev/null 2>&1 || { \
	echo "smidgen: Python 3.11 is needed, and '$(PYTHON)' does not run:" \
	"install it, or name it: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }

setup: python  ## make .venv with the locked packages (first time: about 1 GB to download)
	@$(SETUP) main >/dev/null

demo: setup  ## the whole line on 5,000 real digits: train, export, judge, measure
	@$(VENV)/python examples/digits/build.py build/digits
	@$(VENV)/smidgen run examples/digits/recipe.toml --out build/demo

test: test-setup  ## all tests: the fast ones, then the slow ones room by room
	@$(MAKE) --no-print-directory test-fast
	@$(MAKE) --no-print-directory test-slow

test-setup: setup
	@$(SETUP) runtime-litert >/dev/null
	@$(SETUP) runtime-onnx >/dev/null
	@$(SETUP) jax >/dev/null
	@$(SETUP) mediapipe >/dev/null
	@$(SETUP) openers >/dev/null
	@$(PYTHON) tools/node_openers.py
	@$(PYTHON) tools/boards.py

test-fast: setup  ## the tests that take seconds
	@echo "== fast tests"
	@$(VENV)/python -m pytest -q $(SPREAD) -m "not slow"

test-slow: test-setup
	@echo "== slow tests: they train, convert and measure"
	@SMIDGEN_TEST_JAX_PYTHON="$(CURDIR)/.venv-jax/bin/python" \
	SMIDGEN_TEST_MEDIAPIPE_PYTHON="$(CURDIR)/.venv-mediapipe/bin/python" \
	SMIDGEN_TEST_OPENERS_PYTHON="$(CURDIR)/.venv-openers/bin/python" \
	SMIDGEN_TEST_NODE_OPENERS="$(CURDIR)/build/node-openers" \
	$(VENV)/python -m pytest -x -v $(SPREAD) --durations=10 -m slow $(SLOW_ORDER)

e2e: test-setup  ## only the end-to-end tests: the whole line, the wheels on bare devices
	@$(VENV)/python -m pytest -x -v -m slow tests/end_to_end

lint: setup  ## ruff: lint and format
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .

types: setup  ## strict mypy
	@$(VENV)/mypy

wheels: setup  ## build both wheels, and the runtime's sdist, into dist/
	@rm -rf build/lib build/bdist.* runtime/build
	@$(VENV)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	@$(VENV)/python -m build --no-isolation --outdir dist runtime >/dev/null
	@ls -l dist/*.whl dist/*.tar.gz

boards:  ## make the emulated ARM boards of the tests in build/boards (Debian, root)
	@$(PYTHON) tools/boards.py

docs: setup  ## write docs/commands.md anew from --help
	@$(VENV)/python tools/write_commands.py

lock:  ## write locks/*.txt anew from locks/*.in (needs uv); add UPGRADE=--upgrade for newer ones
	@for name in $(LOCKS); do echo "locks/$$name.txt"; \
	(cd locks && $(UV) pip compile -q --config-file uv.toml $(UPGRADE) -o $$name.txt $$name.in) \
	|| exit 1; done
	@cd locks && $(UV) pip compile -q --config-file uv.toml --no-deps $(UPGRADE) \
	-o demo-data.txt demo-data.in
	@cd locks && $(UV) pip compile -q --config-file uv.toml --no-deps $(UPGRADE) \
	-o board-armhf.txt board-armhf.in
	@cd locks && $(UV) pip compile -q --config-file uv.toml --python-version 3.9 $(UPGRADE) \
	-o pythons.txt pythons.in
	@if grep -n '://' locks/*.txt; then echo "a lock names an address" >&2; exit 1; fi

clean:  ## remove what was made: environments, builds, caches (results in build/ too)
	@rm -rf .venv .venv-* build dist runtime/build runtime/dist .mypy_cache .ruff_cache .pytest_cache
	@find . -name '*.egg-info' -prune -exec rm -rf {} +
