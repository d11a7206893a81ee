"""The model process imports nothing from the current directory, whatever lies there."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.environment import environment

from edge_vlm_ros.serving.process.launcher import import_path

ROOT = Path(__file__).resolve().parents[2]
TRAPS = ('json', 'numpy', 'socket', 'yaml', 'tokenizers', 'edge_vlm_ros', 'sitecustomize')
OPEN = """
import sys
sys.path.insert(0, {first!r})
from edge_vlm_ros.core import Question
from edge_vlm_ros.serving import EnginePhase, ModelProcess, ModelSpec
import os, threading
os.chdir({here!r})
ready, states = threading.Event(), []
def note(state):
    states.append(state)
    if state.phase in (EnginePhase.READY, EnginePhase.FAILED):
        ready.set()
process = ModelProcess(ModelSpec(chip='scripted'), on_state=note)
process.start()
assert ready.wait(60), states
assert states[-1].phase is EnginePhase.READY, states[-1]
process.close()
"""


@pytest.mark.parametrize('first', ['', '.', 'here'])
@pytest.mark.parametrize('empty', ['', os.pathsep])
def test_a_folder_full_of_traps_as_current_directory_is_not_imported_from(tmp_path, first, empty):
    (tmp_path / 'here').mkdir()
    for name in TRAPS:
        trap = tmp_path / f'{name}.py'
        trap.write_text(f'open({str(tmp_path / "caught")!r}, "a").write({name!r})\n')
    # The parent's own modules are loaded before it changes into the folder.
    done = subprocess.run(
        [sys.executable, '-c', OPEN.format(first=first, here=str(tmp_path))],
        cwd=ROOT,
        env=environment({'PYTHONPATH': empty + os.pathsep.join(filter(None, sys.path))}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / 'caught').exists()


def test_only_absolute_folders_are_handed_on_and_the_package_stays_there():
    own = str(ROOT)
    assert import_path(['/a', '/b']) == ['/a', '/b']
    assert import_path(['', '.', 'x', '/a', own]) == ['/a', own]
    assert import_path(['', '/a'])[0] == '/a'
    assert len(import_path(['', '/a'])) == 2
    assert json.dumps(import_path(sys.path))
