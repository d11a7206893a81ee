"""A clean copy of the tree, as a fresh clone would have it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = ('.git', '.venv*', 'build', 'install', 'log', 'dist', '__pycache__', '.*_cache')


def files_of_the_tree():
    """Return what git knows or would add; everything but build outputs where there is no git."""
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z']
    listing = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    if listing.returncode != 0:
        return None
    return [name for name in listing.stdout.split('\0') if name and (ROOT / name).is_file()]


@pytest.fixture
def clean_tree(tmp_path):
    """Return a copy of the tree without anything that was built."""
    tree = tmp_path / 'tree'
    names = files_of_the_tree()
    if names is None:
        return shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*LEFT_OUT))
    for name in names:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    return tree
