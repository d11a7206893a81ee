"""`edge-vlm doctor`: what it finds, and what it says to do."""

from __future__ import annotations

import json
import os
import sys

import pytest

from edge_vlm_ros import cyclonedds
from edge_vlm_ros.cli import probes
from edge_vlm_ros.cli.findings import Finding, State, as_text
from edge_vlm_ros.cli.installing import PythonHome, PythonKind
from edge_vlm_ros.cli.middleware_probes import find_shared_memory
from edge_vlm_ros.cli.python_probes import Package, find_python
from edge_vlm_ros.fastdds import PROFILE_VARIABLES, shipped_profile

PROFILE = """<dds><profiles><transport_descriptors><transport_descriptor>
<segment_size>{}</segment_size></transport_descriptor></transport_descriptors></profiles></dds>"""


@pytest.fixture
def no_profile(monkeypatch):
    for name in PROFILE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name in ('RMW_IMPLEMENTATION', 'ROS_DISTRO'):
        monkeypatch.delenv(name, raising=False)


def _profile():
    return find_shared_memory('rmw_fastrtps_cpp')[0]


def test_a_profile_that_is_not_set_comes_with_the_line_that_sets_it(no_profile):
    found = _profile()
    assert found.state is State.WARNING
    assert 'export FASTDDS_DEFAULT_PROFILES_FILE=' in found.remedy
    assert 'FASTRTPS' not in found.remedy, 'Fast DDS 3 warns about it'
    assert shipped_profile().is_file()
    assert str(shipped_profile()) in found.remedy


def test_fast_dds_2_gets_the_profile_under_its_old_name_too(no_profile, monkeypatch):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    for name in PROFILE_VARIABLES:
        assert f'{name}=' in _profile().remedy


@pytest.mark.parametrize('variable', PROFILE_VARIABLES)
def test_a_profile_with_room_for_an_image_is_fine(no_profile, monkeypatch, tmp_path, variable):
    path = tmp_path / 'profile.xml'
    path.write_text(PROFILE.format(16 << 20))
    monkeypatch.setenv(variable, str(path))
    assert _profile().state is State.OK
    assert '16 MiB' in _profile().found


def test_our_own_profile_is_fine(no_profile, monkeypatch):
    monkeypatch.setenv(PROFILE_VARIABLES[0], str(shipped_profile()))
    assert _profile().state is State.OK


@pytest.mark.parametrize('content', [PROFILE.format(512 * 1024), '<dds/>', None])
def test_a_profile_without_room_or_without_a_file_is_a_warning(
    no_profile, monkeypatch, tmp_path, content
):
    path = tmp_path / 'profile.xml'
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(PROFILE_VARIABLES[0], str(path))
    assert _profile().state is State.WARNING
    assert str(path) in _profile().found


CYCLONE = 'rmw_cyclonedds_cpp'
OURS = cyclonedds.uri_of(shipped_profile(cyclonedds.PROFILE_NAME))


@pytest.mark.parametrize(
    ('limit', 'state', 'remedy'),
    [
        (212_992, State.WARNING, 'sysctl -w net.core.rmem_max=16777216'),
        (0, State.WARNING, 'sysctl -w net.core.rmem_max=16777216'),
        (16 << 20, State.OK, ''),
    ],
)
def test_cyclone_dds_needs_a_kernel_that_allows_large_buffers(monkeypatch, limit, state, remedy):
    monkeypatch.setattr(cyclonedds, 'receive_buffer_limit', lambda: limit)
    found = find_shared_memory(CYCLONE)[1]
    assert (found.name, found.state) == ('net.core.rmem_max', state)
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ('uri', 'state'),
    [
        ('', State.OK),
        (OURS, State.OK),
        (OURS.removeprefix('file://'), State.OK),
        ('<CycloneDDS><Domain/></CycloneDDS>', State.WARNING),
        ('file:///nowhere/at/all.xml', State.WARNING),
    ],
)
def test_cyclone_dds_needs_a_profile_where_images_are_received(monkeypatch, uri, state):
    monkeypatch.setenv(cyclonedds.PROFILE_VARIABLE, uri)
    found = find_shared_memory(CYCLONE)[0]
    assert (found.name, found.state) == ('profile', state)
    assert bool(found.remedy) == (uri not in {OURS, OURS.removeprefix('file://')})
    if found.remedy:
        assert f'export CYCLONEDDS_URI={OURS}' in found.remedy


@pytest.mark.parametrize(
    ('override', 'state'),
    [('', State.ABSENT), ('mode="client"; transport/shared_memory/enabled=true', State.OK)],
)
def test_zenoh_takes_shared_memory_where_it_is_told_to(monkeypatch, override, state):
    monkeypatch.setenv('ZENOH_CONFIG_OVERRIDE', override)
    assert find_shared_memory('rmw_zenoh_cpp')[0].state is state


def test_an_unknown_middleware_is_called_so():
    (found,) = find_shared_memory('rmw_of_tomorrow')
    assert found.state is State.WARNING
    assert 'rmw_of_tomorrow is unknown' in found.found


@pytest.mark.parametrize('other', [CYCLONE, 'rmw_zenoh_cpp', 'rmw_of_tomorrow'])
def test_no_other_middleware_gets_the_advice_for_fast_dds(no_profile, other):
    said = str(find_shared_memory(other))
    assert 'FASTDDS' not in said
    assert '512' not in said


@pytest.mark.parametrize(
    ('megabytes', 'free', 'state'),
    [(64, 64, State.WARNING), (1024, 20, State.WARNING), (1024, 900, State.OK)],
)
def test_small_or_full_shared_memory_is_a_warning(monkeypatch, megabytes, free, state):
    total, left = megabytes * 256, free * 256
    room = os.statvfs_result((4096, 4096, total, left, left, 0, 0, 0, 0, 255))
    monkeypatch.setattr(os, 'statvfs', lambda _: room)
    found = find_shared_memory('rmw_fastrtps_cpp')[1]
    assert found.state is state
    assert f'{megabytes} MiB' in found.found


def test_a_missing_module_comes_with_the_command_that_installs_it():
    home = PythonHome(sys.executable, PythonKind.VIRTUAL)
    _, found = find_python(home, (Package('no_such_module', 'no-such-package'),))
    assert found.state is State.MISSING
    assert "No module named 'no_such_module'" in found.found
    assert found.remedy == f'{sys.executable} -m pip install no-such-package'


@pytest.mark.parametrize(
    ('version', 'distro'),
    [('3.3.21', 'humble'), ('7.1.9', 'jazzy'), ('9.1.2', 'kilted'), ('10.0.3', 'lyrical')],
)
def test_a_distribution_that_is_not_sourced_is_known_by_its_rclpy(monkeypatch, version, distro):
    monkeypatch.delenv('ROS_DISTRO', raising=False)
    monkeypatch.setattr(probes, 'import_error', lambda *_, **__: None)
    monkeypatch.setattr(probes, 'version_of', lambda *_: version)
    assert probes.find_ros()[0].found == f'{version} ({distro})'


@pytest.mark.ros
def test_ros_and_our_interfaces_are_found():
    found = {finding.name: finding for finding in probes.find_ros()}
    assert {finding.state for finding in found.values()} == {State.OK}
    assert found['rclpy'].found.endswith(')')


@pytest.mark.ros
def test_a_middleware_that_is_not_installed_is_a_warning(monkeypatch):
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_no_such_thing')
    found = {finding.name: finding for finding in probes.find_ros()}
    assert found['middleware'].state is State.WARNING


@pytest.mark.ros
def test_the_middleware_is_the_one_that_ros_says_runs(no_profile, monkeypatch):
    from rclpy.utilities import get_rmw_implementation_identifier

    assert probes.middleware() == get_rmw_implementation_identifier()
    monkeypatch.setenv('RMW_IMPLEMENTATION', 'rmw_no_such_thing')
    assert probes.middleware() == 'rmw_no_such_thing', 'what was asked for'


def test_without_ros_the_doctor_says_how_to_get_it(monkeypatch, tmp_path):
    (tmp_path / 'rclpy.py').write_text('raise ImportError("librcl.so: no such file")')
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    (found,) = probes.find_ros()
    assert found.state is State.ABSENT
    assert 'librcl.so' in found.found
    assert 'setup.bash' in found.remedy


def test_findings_stand_under_their_headings_with_what_to_do():
    text = as_text(
        [
            Finding('One', 'short', State.OK, 'here'),
            Finding('One', 'longer name', State.MISSING, 'not here', 'get it'),
            Finding('Two', 'x', State.ABSENT, 'not here'),
        ]
    )
    assert text.splitlines() == [
        'One',
        '  ok       short        here',
        '  MISSING  longer name  not here',
        '                        -> get it',
        '',
        'Two',
        '  absent   x            not here',
    ]


def test_a_machine_where_the_demo_model_answers_gets_0(edge_vlm):
    done = edge_vlm('doctor', '--json')
    report = json.loads(done.stdout)
    assert (done.returncode, report['works']) == (0, True)
    trial = report['findings'][-1]
    assert trial['state'] == 'ok'
    assert 'answered' in trial['found']
    assert {f['name'] for f in report['findings']} >= {'python', 'numpy', 'profile', 'demo (cpu)'}


def test_a_machine_without_a_needed_module_gets_3_and_the_remedy(edge_vlm, tmp_path):
    (tmp_path / 'onnxruntime.py').write_text('raise ImportError("onnxruntime is broken here")')
    done = edge_vlm('doctor', env={**os.environ, 'PYTHONPATH': str(tmp_path)})
    assert done.returncode == 3
    assert 'onnxruntime is broken here' in done.stdout
    assert 'pip install onnxruntime' in done.stdout
    assert 'not tried without onnxruntime' in done.stdout


def test_a_damaged_demo_model_gets_3(edge_vlm, tmp_path):
    folder = tmp_path / 'cpu' / 'demo'
    (folder / 'onnx').mkdir(parents=True)
    for name in ('vision_encoder', 'embed_tokens', 'decoder_model_merged'):
        (folder / 'onnx' / f'{name}.onnx').write_bytes(b'not a model')
    for name in ('config.json', 'tokenizer.json'):
        (folder / name).write_text('{}')
    done = edge_vlm('doctor', '--model-dir', tmp_path)
    assert done.returncode == 3
    assert 'MISSING  trial' in done.stdout
