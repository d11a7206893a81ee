"""package.xml names what the package imports, and nothing that pip would have to bring."""

import ast
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROSDEP_KEYS = {
    'aiohttp': 'python3-aiohttp',
    'cv2': 'python3-opencv',
    'numpy': 'python3-numpy',
    'yaml': 'python3-yaml',
}
# What rosdep cannot or must not install; package.xml says why in a comment.
FROM_ELSEWHERE = {
    'axengine': 'axengine',
    'cv_bridge': 'cv_bridge',
    'dfss': 'dfss',
    'huggingface_hub': 'huggingface_hub',
    'mcp': 'mcp',
    'anyio': 'anyio',
    'pydantic': 'pydantic',
    'matplotlib': 'matplotlib',
    'onnxruntime': 'onnxruntime',
    'rosbags': 'rosbags',
    'sophon': 'sophon-sail',
    'tokenizers': 'tokenizers',
    'transformers': 'transformers',
}
NOT_IMPORTED = {
    'action_msgs': 'what generated actions need',
    'python3-venv': 'the virtual environment of the README',
    'ros2launch': 'the command `ros2 launch`',
    'rosidl_default_runtime': 'what generated messages need',
}


def modules_of(source):
    """Return the names of the modules that a source imports, but not those for types alone."""
    tree = ast.parse(source)
    for node in [n for n in ast.walk(tree) if isinstance(n, ast.If)]:
        if ast.unparse(node.test) == 'TYPE_CHECKING':
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Call) and called(node.func) == 'import_module':
            yield from (a.value for a in node.args if isinstance(a, ast.Constant))


def called(function):
    """Return the last name of what is called."""
    return getattr(function, 'attr', getattr(function, 'id', ''))


@cache
def imported_modules():
    """Return the top-level modules, not Python's or ours, with one file that imports each."""
    files = [f for folder in ('edge_vlm_ros', 'launch') for f in (ROOT / folder).rglob('*.py')]
    generated = {ROOT / 'edge_vlm_ros' / name for name in ('action', 'msg', 'srv')}
    ours = {'edge_vlm_ros', *sys.stdlib_module_names}
    found = {}
    for file in sorted(f for f in files if not generated.intersection(f.parents)):
        for name in modules_of(file.read_text()):
            found.setdefault(name.partition('.')[0], str(file.relative_to(ROOT)))
    return {name: file for name, file in found.items() if name not in ours}


@pytest.fixture(scope='module')
def manifest():
    return ET.parse(ROOT / 'package.xml').getroot()


def run_time_dependencies(manifest):
    return {e.text for tag in ('depend', 'exec_depend') for e in manifest.iterfind(tag)}


def test_everything_that_is_imported_is_named_or_explained(manifest):
    named = run_time_dependencies(manifest) | FROM_ELSEWHERE.keys()
    imported = imported_modules()
    assert {n: f for n, f in imported.items() if ROSDEP_KEYS.get(n, n) not in named} == {}
    assert {'rclpy', 'sensor_msgs', 'launch_ros', 'numpy', 'sophon'} <= imported.keys()


def test_everything_that_is_named_is_imported_or_has_a_reason(manifest):
    imported = {ROSDEP_KEYS.get(name, name) for name in imported_modules()}
    assert run_time_dependencies(manifest) - imported == NOT_IMPORTED.keys()


def test_what_rosdep_must_not_install_is_explained_and_not_named(manifest):
    text = (ROOT / 'package.xml').read_text()
    assert [name for name in FROM_ELSEWHERE.values() if name not in text] == []
    assert [name for name in run_time_dependencies(manifest) if name.endswith('-pip')] == []


def test_the_manifest_says_where_the_package_lives(manifest):
    urls = {e.get('type'): e.text for e in manifest.iterfind('url')}
    assert urls.keys() == {'website', 'repository', 'bugtracker'}
    mail = manifest.find('maintainer').get('email')
    assert {url.split('/')[2] for url in urls.values()} == {mail.partition('@')[2]}
