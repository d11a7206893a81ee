"""The other end of `support.sophgo.emulator.call`: runs in the process with the emulator."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Final

from support.sophgo.emulator import ROOT, CallFiles, EmulatorError

# Packages whose errors the caller can unpickle: it has no sophon, and no test file by name.
_TRAVELLING: Final = {'builtins', 'edge_vlm_ros', 'numpy', 'support'}


def _answer_call(folder: Path) -> None:
    """Do what `call` asked for, in the process with the emulator."""
    files = CallFiles(folder)
    file, name, arguments = pickle.loads(files.request.read_bytes())
    try:
        answer = (True, getattr(_load(Path(file)), name)(*arguments), '')
        data = pickle.dumps(answer)
    except Exception as error:  # noqa: BLE001, whatever it is belongs to the caller
        data = _pickled_error(error)
    part = files.answer.with_suffix('.part')
    part.write_bytes(data)
    part.rename(files.answer)


def _pickled_error(error: Exception) -> bytes:
    """Return an error as bytes, as plain text where it cannot travel or would not arrive."""
    text = ''.join(traceback.format_exception(type(error), error, error.__traceback__))
    plain = EmulatorError(f'{type(error).__name__}: {error}')
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001, pickling calls what it likes
        return pickle.dumps((False, plain, text))
    travels = type(error).__module__.partition('.')[0] in _TRAVELLING
    return pickle.dumps((False, error if travels else plain, text))


def _root_of_package(file: Path) -> Path | None:
    """Return the folder on sys.path that a module is imported from; None for a test's own file."""
    if file.is_relative_to(ROOT / 'test' / 'support'):
        return ROOT / 'test'
    is_test = file.is_relative_to(ROOT / 'test')
    return ROOT if file.is_relative_to(ROOT) and not is_test else None


def _load(file: Path) -> ModuleType:
    """Import a file: a module of this tree by its name, any other by its path."""
    root = _root_of_package(file)
    if root is not None:
        name = '.'.join(file.relative_to(root).with_suffix('').parts)
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f'on_emulator_{file.stem}', file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == '__main__':
    _answer_call(Path(sys.argv[1]))
