# Each target does the set-up it needs (tools/setup/), also on a machine that has never seen ROS.
#   make demo    a robot camera is asked questions, over real ROS 2
#   make test    what every change must pass; PYTEST_ARGS='-m "not slow"' chooses, WORKERS=0 runs one test at a time
#   make test-all    these, and then what they prove again on more variants (make test-rest: those alone)
#   make bench   the benchmark table, and build/bench.json
#   make lint    ruff, mypy and the import contracts
#   make docs    the generated parts of doc/
#   make clean   remove .venv and everything that was built
# PYTHON=python3.12 chooses the Python for .venv. With a sourced ROS 2 that one is used.

PYTHON ?= python3
PYTEST_ARGS ?=
WORKERS ?= 2
RUN = tools/setup/run.sh
# The tests of a file share processes and models, so a worker takes whole files.
PYTEST = $(RUN) python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-rest test-all bench lint setup setup-run clean

help:
	@sed -n '/^# *make /s/^# *//p' Makefile

demo: setup-run
	@$(RUN) python -m edge_vlm_ros.demo.run

test: setup
	@$(PYTEST) --exhaustive=without $(PYTEST_ARGS)

test-rest: setup
	@$(PYTEST) --exhaustive=only $(PYTEST_ARGS)

test-all: test test-rest

bench: setup
	@PYTHONPATH=test $(RUN) python -m tools.bench

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	$(RUN) lint-imports

.PHONY: docs
docs: setup-run
	@$(RUN) python -m tools.docs

setup: LEVEL = test
setup-run: LEVEL = run
setup setup-run:
	@command -v $(PYTHON) >/dev/null || \
	  { echo '$(PYTHON) not found. On Debian or Ubuntu: sudo apt install python3'; exit 1; }
	@$(PYTHON) tools/setup/setup_env.py $(LEVEL)

clean:
	rm -rf .venv build install log dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
