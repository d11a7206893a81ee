"""What the package promises to whoever installs it."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
MEGABYTE = 1 << 20


def test_importing_the_package_loads_nothing_heavy():
    code = (
        'import sys; before = set(sys.modules); import edge_vlm_ros;'
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    run = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True, text=True)
    heavy = {'cv2', 'numpy', 'onnxruntime', 'rclpy', 'tokenizers', 'torch', 'transformers'}
    assert heavy.isdisjoint(run.stdout.split())


def test_the_shared_memory_profile_has_room_for_full_hd_images():
    tree = ET.parse(ROOT / 'config' / 'fastdds_shm.xml')
    namespace = {'dds': 'http://www.eprosima.com'}
    size = int(tree.findtext('.//dds:segment_size', namespaces=namespace))
    assert 2 * 1920 * 1080 * 3 < size <= 16 * MEGABYTE
    defined = {
        e.text for e in tree.iterfind('.//dds:transport_descriptor/dds:transport_id', namespace)
    }
    used = {e.text for e in tree.iterfind('.//dds:userTransports/dds:transport_id', namespace)}
    assert used == defined


def test_the_manifest_follows_the_format_and_names_no_version_twice():
    package = ET.parse(ROOT / 'package.xml').getroot()
    assert package.get('format') == '3'
    assert re.fullmatch(r'\d+\.\d+\.\d+', package.findtext('version'))
    assert package.findtext('member_of_group') == 'rosidl_interface_packages'
    assert 'version = ' not in (ROOT / 'pyproject.toml').read_text().split('[tool.', 1)[0]


def test_the_quality_declaration_claims_what_ci_runs():
    text = (ROOT / 'QUALITY_DECLARATION.md').read_text()
    tests = text.partition('## Testing')[2].partition('What it does not run')[0]
    claimed = re.findall(r'^\* `(make [\w-]+)`', tests, re.MULTILINE)
    run = [line.split('#')[0].strip() for line in (ROOT / '.ci' / 'run').read_text().splitlines()]
    assert claimed == [line for line in run if line.startswith('make ')]


def test_every_executable_starts_a_main_function():
    for script in (ROOT / 'scripts').iterdir():
        module = re.search(r'from (edge_vlm_ros[\w.]+) import main', script.read_text())[1]
        path = ROOT / f'{module.replace(".", "/")}.py'
        assert re.search(r'^def main\(', path.read_text(), re.MULTILINE), path
