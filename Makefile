# Each target does the set-up it needs (tools/setup/), also on a machine that has never seen ROS.
#   make demo    a robot camera is asked questions, over real ROS 2
#   make test    what every change must pass; PYTEST_ARGS='-m "not slow"' chooses, WORKERS=0 runs one test at a time
#   make test-all    these, and then what they prove again on more variants (make test-rest: those alone)
#   make bench   the benchmark table, and build/bench.json
#   make soak    thousands of mixed requests with random faults, at most ten minutes, and build/soak.json
#   make lint    ruff, mypy and the import contracts
#   make docs    the generated parts of doc/
#   make test-jazzy  the tests of the nodes, on ROS 2 Jazzy
#   make clean   remove .venv and everything that was built
# PYTHON=python3.12 chooses the Python for .venv. With a sourced ROS 2 that one is used, else Kilted from PyPI;
# ROS=jazzy takes Jazzy, for any target, in .venv-jazzy beside .venv.

PYTHON ?= python3
ROS ?=
export ROS
PYTEST_ARGS ?=
SOAK_ARGS ?=
WORKERS ?= 4
RUN = tools/setup/run.sh
# The tests of a file share processes and models, so a worker takes whole files.
PYTEST = $(RUN) python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
STAND_INS = test/support/axera/standin:test/support/ros_launch/standin:test/support/sophgo/standin

.PHONY: help demo test test-rest test-all test-jazzy bench soak lint setup setup-nodes setup-run clean

help:
	@sed -n '/^# *make /s/^# *//p' Makefile

demo: setup-run
	@$(RUN) python -m edge_vlm_ros.demo.run

test: setup
	@$(PYTEST) --exhaustive=without $(PYTEST_ARGS)

test-rest: setup
	@$(PYTEST) --exhaustive=only $(PYTEST_ARGS)

test-all: test test-rest

# What the middleware, rclpy and the message generator of another distribution can change. The chip emulators, the
# engines and the browser know no ROS: `make test` has them.
# Nor do the model process, servers and the command line, which these are about.
WITHOUT_ROS = adding_a_chip adding_a_family vlm_axera vlm_demo_model vlm_fault_matrix vlm_kills vlm_remote vlm_smolvlm
test-jazzy: ROS = jazzy
test-jazzy: setup-nodes
	@$(PYTEST) -m 'not browser and not emulator and not exhaustive' $(WITHOUT_ROS:%=--ignore=test/nodes/test_%.py) \
	  test/nodes test/packaging/test_interfaces.py $(PYTEST_ARGS)

bench: setup
	@PYTHONPATH=test $(RUN) python -m tools.bench

soak: setup
	@PYTHONPATH=test $(RUN) python -m tools.soak $(SOAK_ARGS)

lint: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@# The stand-ins again, as the packages whose names they have; else these are test/typings.
	MYPYPATH=$(STAND_INS) $(RUN) mypy --cache-dir .mypy_cache/stand_ins $$(find $(subst :, ,$(STAND_INS)) -name '*.py')
	PYTHONPATH=test $(RUN) lint-imports

.PHONY: docs
docs: setup-run
	@$(RUN) python -m tools.docs

setup: LEVEL = test
setup-nodes: LEVEL = nodes
setup-run: LEVEL = run
setup setup-nodes setup-run:
	@command -v $(PYTHON) >/dev/null || \
	  { echo '$(PYTHON) not found. On Debian or Ubuntu: sudo apt install python3'; exit 1; }
	@$(PYTHON) tools/setup/setup_env.py $(LEVEL)

clean:
	rm -rf .venv .venv-* build install log dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
