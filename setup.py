"""Build the package with pip, for machines without colcon.

CMake makes the interfaces (the same CMakeLists.txt as colcon runs), setuptools packs the result.
Where no ROS 2 for this Python is found, only the Python modules are installed: enough for
`edge-vlm ask` and for plain Python users. EDGE_VLM_ROS_INTERFACES=on makes a missing ROS 2 an
error, =off leaves the interfaces out.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NAME = 'edge_vlm_ros'
ROOT = Path(__file__).resolve().parent
REQUIREMENTS = ROOT / 'tools' / 'setup' / 'requirements'
PYTHON_VERSION = f'python{sys.version_info.major}.{sys.version_info.minor}'
# Generated folders; also what an older in-place build may have left in the source package.
INTERFACE_FOLDERS = ('action', 'msg', 'srv')


def ros_prefixes() -> list[Path]:
    """Return where ROS 2 is: the sourced folders, then this Python's own (wheels from PyPI)."""
    sourced = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    return [Path(prefix) for prefix in dict.fromkeys([*filter(None, sourced), sys.prefix])]


def python_folders(prefixes: list[Path]) -> list[Path]:
    """Return the folders of these prefixes that hold modules for the running Python."""
    places = (f'lib/{PYTHON_VERSION}/site-packages', f'local/lib/{PYTHON_VERSION}/dist-packages')
    folders = [prefix / place for prefix in prefixes for place in places]
    return [folder for folder in folders if folder.is_dir()]


def can_build_interfaces() -> bool:
    """Return whether the interface generators are here, and for this very Python."""
    prefixes = ros_prefixes()
    has_cmake_part = any((p / 'share/rosidl_default_generators').is_dir() for p in prefixes)
    has_python_part = any((f / 'rosidl_generator_py').is_dir() for f in python_folders(prefixes))
    return has_cmake_part and has_python_part


def wants_interfaces() -> bool:
    """Decide whether to build the interfaces; say so when they are left out."""
    wish = os.environ.get('EDGE_VLM_ROS_INTERFACES', 'auto')
    if wish not in {'auto', 'off', 'on'}:
        raise SystemExit(f'EDGE_VLM_ROS_INTERFACES must be auto, on or off, not {wish!r}')
    if wish == 'off':
        return False
    if can_build_interfaces():
        return True
    places = ', '.join(map(str, ros_prefixes()))
    missing = f'{NAME}: no ROS 2 interface generators for {PYTHON_VERSION} in {places}'
    if wish == 'on':
        raise SystemExit(missing)
    sys.stderr.write(
        f'{missing}: installing the Python modules only, without messages and nodes\n'
    )
    return False


class BuildInterfaces(build_ext):
    """Run CMakeLists.txt into a staging folder and hand what it installed to setuptools."""

    def get_outputs(self) -> list[str]:
        """Return nothing: the parent would name the dummy extension, never compiled."""
        return []

    def run(self) -> None:
        """Build; hand over the Python part and the rest (libraries, share/, executables)."""
        editable = getattr(self, 'editable_mode', False) or self.inplace
        # An editable build is done again and again: keeping its folder makes that quick.
        work = kept_build_folder() if editable else Path(self.build_temp).resolve()
        stage = work / 'stage'
        run_cmake(work / 'cmake', stage)
        point_to_this_python(stage / 'lib' / NAME)
        generated = stage / 'lib' / PYTHON_VERSION / 'site-packages' / NAME
        files = data_files(stage, skip=generated.parent)
        if editable:
            # Beside the link to the source tree; extend_path in __init__.py joins the two.
            files |= data_files_of_modules(generated)
            # setuptools leaves data files out of editable wheels unless told that there are some.
            self.distribution.has_data = lambda: True
        else:
            copy_modules(generated, Path(self.build_lib).resolve() / NAME)
        self.distribution.data_files = list(files.items())


def kept_build_folder() -> Path:
    """Return a folder under build/ for this Python and this ROS 2."""
    key = hashlib.sha256(repr((sys.executable, ros_prefixes())).encode()).hexdigest()[:8]
    return ROOT / 'build' / f'editable-{PYTHON_VERSION}-{key}'


def run_cmake(build: Path, stage: Path) -> None:
    """Configure and build in `build`, install into an empty `stage`."""
    shutil.rmtree(stage, ignore_errors=True)
    options = [
        f'-DCMAKE_INSTALL_PREFIX={stage}',
        '-DCMAKE_BUILD_TYPE=Release',
        '-DBUILD_TESTING=OFF',
        f'-DPython3_EXECUTABLE={sys.executable}',
        f'-DPYTHON_INSTALL_DIR=lib/{PYTHON_VERSION}/site-packages',
    ]
    generator = ['-G', 'Ninja'] if shutil.which('ninja') else []
    jobs = str(os.cpu_count() or 1)
    for command in (
        ['cmake', '-S', str(ROOT), '-B', str(build), *generator, *options],
        ['cmake', '--build', str(build), '--parallel', jobs],
        ['cmake', '--install', str(build)],
    ):
        subprocess.check_call(command, env=cmake_environment())


def cmake_environment() -> dict[str, str]:
    """Return the environment for CMake.

    pip's isolated build replaces PYTHONPATH, but the generators need the modules of ROS 2.
    """
    prefixes = ros_prefixes()
    joined = os.pathsep.join(map(str, prefixes))
    env = {**os.environ, 'AMENT_PREFIX_PATH': joined, 'CMAKE_PREFIX_PATH': joined}
    env['PYTHONPATH'] = os.pathsep.join(map(str, python_folders(prefixes)))
    env.pop('PYTHONHOME', None)
    return env


def point_to_this_python(folder: Path) -> None:
    """Make the executables in `folder` start with this Python, so that `ros2 run` finds .venv."""
    first_line = f'#!{sys.executable}'
    for script in folder.iterdir():
        text = script.read_text(encoding='utf-8')
        rest = text.partition('\n')[2]
        script.write_text(f'{first_line}\n{rest}', encoding='utf-8')


def copy_modules(generated: Path, package: Path) -> None:
    """Copy the generated Python modules into `package`."""
    for file in generated_files(generated):
        target = package / file.relative_to(generated)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)


def generated_files(generated: Path) -> list[Path]:
    """Return what the Python generator made: modules and extension modules, no C sources."""
    in_folders = [f for name in INTERFACE_FOLDERS for f in (generated / name).rglob('*.py')]
    return sorted([*in_folders, *generated.glob('*.so')])


def data_files_of_modules(generated: Path) -> dict[str, list[str]]:
    """Return the generated modules as data files for this Python's site-packages."""
    paths = sysconfig.get_paths()
    site_packages = Path(os.path.relpath(paths['purelib'], paths['data'])) / NAME
    files: dict[str, list[str]] = {}
    for file in generated_files(generated):
        folder = site_packages / file.relative_to(generated).parent
        files.setdefault(str(folder), []).append(os.path.relpath(file, ROOT))
    return files


def data_files(stage: Path, *, skip: Path) -> dict[str, list[str]]:
    """Return what CMake installed, less Python modules and bin/ (pip makes its `edge-vlm`)."""
    files: dict[str, list[str]] = {}
    for file in sorted([*(stage / 'lib').rglob('*'), *(stage / 'share').rglob('*')]):
        if file.is_file() and skip not in file.parents:
            folder = str(file.relative_to(stage).parent)
            files.setdefault(folder, []).append(os.path.relpath(file, ROOT))
    return files


def version() -> str:
    """Return the version; package.xml is where it is written."""
    text = (ROOT / 'package.xml').read_text(encoding='utf-8')
    found = re.search(r'<version>([^<]+)</version>', text)
    assert found is not None, 'package.xml has no version'
    return found[1]


def requirements(name: str) -> list[str]:
    """Return the lines of one requirements file."""
    lines = (REQUIREMENTS / f'{name}.txt').read_text(encoding='utf-8').splitlines()
    return [line for line in (line.split('#')[0].strip() for line in lines) if line]


def run_requirements() -> list[str]:
    """Return what the package needs; any OpenCV wheel that is installed already will do.

    The OpenCV wheels all install the folder `cv2`, so a second one would overwrite the first.
    """
    site_packages = Path(sysconfig.get_path('purelib'))
    others = ('opencv_python-', 'opencv_contrib_python-')
    has_opencv = any(f.name.startswith(others) for f in site_packages.glob('opencv*.dist-info'))
    return [r for r in requirements('run') if not (has_opencv and r.startswith('opencv'))]


def own_files() -> list[Path]:
    """Return the files of the package in the tree, without generated ones."""
    package = ROOT / NAME
    generated = {package / name for name in INTERFACE_FOLDERS}
    files = (f for f in sorted(package.rglob('*')) if not generated.intersection(f.parents))
    return [f for f in files if f.is_file() and f.suffix not in {'.pyc', '.so'}]


def packages() -> list[str]:
    """Return every folder that holds modules, as CMake installs them all."""
    folders = {f.parent.relative_to(ROOT) for f in own_files() if f.suffix == '.py'}
    return sorted('.'.join(folder.parts) for folder in folders)


def package_data() -> list[str]:
    """Return every file that is not a Python module: models, clips, web pages, py.typed."""
    return [str(f.relative_to(ROOT / NAME)) for f in own_files() if f.suffix != '.py']


setup(
    version=version(),
    install_requires=run_requirements(),
    extras_require={
        'fetch': requirements('fetch'),
        'mcp': requirements('mcp'),
        'reference': requirements('reference'),
        'replay': requirements('replay'),
        'test': requirements('test'),
    },
    # '' makes the editable install a plain link to this folder, not an import hook: that would be
    # asked only after the folder of generated modules in site-packages was found.
    package_dir={'': '.'},
    packages=packages(),
    package_data={NAME: package_data()},
    ext_modules=[Extension(f'{NAME}._interfaces', [])] if wants_interfaces() else [],
    cmdclass={'build_ext': BuildInterfaces},
    zip_safe=False,
)
