#!/bin/sh
# Run a command of .venv: tools/setup/run.sh python -m pytest
# The wheels from PyPI find their libraries by themselves; with a sourced ROS 2 these variables name ours.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
venv=$root/.venv
export VIRTUAL_ENV="$venv"
export PATH="$venv/bin:$PATH"
export AMENT_PREFIX_PATH="$venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
export LD_LIBRARY_PATH="$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
cd "$root"
exec "$@"
