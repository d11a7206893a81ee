"""The README's and the doctor's way onto a robot: the very lines, on what distributions have."""

from __future__ import annotations

import json
import shlex

import pytest
from packaging.requirements import Requirement
from support.robot_lines import Robot, distributions_here, environment_lines, robot_lines

from edge_vlm_ros.cli.installing import PythonHome, PythonKind
from edge_vlm_ros.cli.python_probes import PACKAGES

ASK = 'python3 -m edge_vlm_ros.cli.main ask --json --image scene.png "What do you see?"'
DOCTOR = 'python3 -m edge_vlm_ros.cli.main doctor --json'
DRAW = "import cv2, numpy as np; cv2.imwrite('scene.png', np.full((96, 128, 3), 128, np.uint8))"


def requirements():
    """Return what the README's pip line asks for."""
    (line,) = [line for line in robot_lines() if 'pip install' in line]
    words = shlex.split(line)
    assert words[:2] == ['pip', 'install'], 'no other pip than that of the environment'
    return [Requirement(word) for word in words[2:]]


def test_the_environment_is_made_hidden_from_colcon_and_activated_before_pip_and_launch():
    text = '\n'.join(robot_lines())
    parts = [
        'python3 -m venv --system-site-packages venv',
        'touch venv/COLCON_IGNORE',
        '. venv/bin/activate',
        'pip install',
        'ros2 launch',
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_pip_brings_what_the_model_path_needs_and_rosdep_does_not():
    names = [r.name for r in requirements()]
    assert names == [*(p.name for p in PACKAGES if not p.apt), 'numpy']


@pytest.mark.parametrize(
    ('version', 'keeps_numpy_1'),
    [('3.10', True), ('3.11', True), ('3.12', True), ('3.13', False), ('3.14', False)],
)
def test_numpy_stays_1_where_the_distribution_has_numpy_1(version, keeps_numpy_1):
    numpy = requirements()[-1]
    assert str(numpy.specifier) == '<2'
    assert numpy.marker.evaluate({'python_version': version}) is keeps_numpy_1


@pytest.mark.parametrize('needs_numpy_1', [False, True])
def test_the_doctor_prints_the_same_line_for_the_python_of_a_distribution(needs_numpy_1):
    home = PythonHome('python3', PythonKind.SYSTEM, needs_numpy_1=needs_numpy_1)
    doctors = home.install_line([p.name for p in PACKAGES if not p.apt])
    marker = '; python_version < "3.13"'
    readmes = ' && '.join(environment_lines()).replace(marker, '')
    assert doctors == (readmes if needs_numpy_1 else readmes.replace(" 'numpy<2'", ''))


@pytest.fixture(params=distributions_here(), ids=lambda here: here[0].name)
def robot(request, tmp_path):
    return Robot(*request.param, tmp_path)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_after_the_lines_of_the_readme_a_question_is_answered(robot):
    robot.run(*environment_lines())
    activate = '. venv/bin/activate'
    robot.run(activate, f'python3 -c "{DRAW}"')
    robot.run(activate, 'python3 -c "import cv2, edge_vlm_ros.engines.cpu, onnxruntime"')
    answer = json.loads(robot.run(activate, ASK))
    assert answer['text']
    _check_the_doctor_mends_numpy(robot, activate)


def _check_the_doctor_mends_numpy(robot, activate):
    """Take numpy 2, as the README once did: only what is built for it goes on working."""
    robot.run(activate, 'pip install -q --upgrade "numpy>=2"')
    report = json.loads(robot.try_to_run(activate, DOCTOR).stdout)
    opencv = next(f for f in report['findings'] if f['name'] == 'opencv-python-headless')
    if opencv['state'] == 'ok':
        assert 'built for numpy 1' not in opencv['found']
        return
    assert 'OpenCV is built for numpy 1 here' in opencv['found']
    robot.run(activate, opencv['remedy'], 'python3 -c "import cv2, onnxruntime"')
