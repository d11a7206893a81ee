#!/bin/sh
# Run a command of .venv: tools/setup/run.sh python -m pytest
# With ROS=jazzy it is one of .venv-jazzy, and the processes know their ROS 2 by ROS_DISTRO, as with a sourced one.
# The wheels from PyPI find their libraries by themselves; with a sourced ROS 2 these variables name ours.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
case ${ROS:-kilted} in
  kilted) venv=$root/.venv ;;
  *)
    venv=$root/.venv-$ROS
    export ROS_DISTRO="$ROS"
    ;;
esac
export VIRTUAL_ENV="$venv"
export PATH="$venv/bin:$PATH"
export AMENT_PREFIX_PATH="$venv${AMENT_PREFIX_PATH:+:$AMENT_PREFIX_PATH}"
export LD_LIBRARY_PATH="$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
cd "$root"
exec "$@"
