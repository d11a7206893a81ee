"""Axmodel sets, written once a session, and a chip that is not there: the stand-in `axengine`."""

import importlib
import os
import sys
from pathlib import Path

import pytest
from support.axera.stub.build import CARD_LIBRARY, build_card_stub, build_stub
from support.axera.stub.compute import Stub

from edge_vlm_ros.engines.axera import library

STAND_IN = Path(__file__).parents[3] / 'test' / 'support' / 'axera' / 'standin'


@pytest.fixture(scope='session')
def write_set(tmp_path_factory):
    """Write a set of the test bench by kind, once: `write_set('tiny-17')` gives its folder."""
    pytest.importorskip('onnx', reason='the sets are written with onnx (test extra)')
    from support.axera.qwen3_sets import write_qwen3_vl
    from support.axera.qwen_sets import write_qwen2_5_vl, write_qwen2_5_vl_3b
    from support.axera.sets import KINDS

    kinds = {
        **KINDS,
        'tiny-qwen2_5-vl': write_qwen2_5_vl,
        'qwen2.5-vl-3b': write_qwen2_5_vl_3b,
        'tiny-qwen3-vl': write_qwen3_vl,
    }
    root = tmp_path_factory.mktemp('axmodels')
    written = {}

    def write(kind):
        if kind not in written:
            written[kind] = kinds[kind](root / kind)
        return written[kind]

    return write


@pytest.fixture(scope='session')
def set_files(write_set):
    """Give a set's ModelFiles by kind."""
    from support.axera.sets import model_files

    return lambda kind, chip='ax650': model_files(write_set(kind), chip)


@pytest.fixture
def stand_in(monkeypatch):
    """Put the stand-in on the path: `stand_in(chip='ax630c')` imports it, environment set so.

    Each test gets modules of its own: the real package starts its libraries at import.
    """
    monkeypatch.syspath_prepend(str(STAND_IN))
    for name in [name for name in os.environ if name.startswith('EDGE_VLM_AX_')]:
        monkeypatch.delenv(name)
    _forget()

    def load(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(f'EDGE_VLM_AX_{name.upper()}', str(value))
        return importlib.import_module('axengine')

    yield load
    _forget()


def use_stub(chip, monkeypatch):
    """Let the stand-in and the engine drive a chip's C stub.

    Stubs are never unloaded: a test process holds those of several chips, so the engine, which
    looks for the one library in use, is told which it is.
    """
    folder = build_stub(chip)
    monkeypatch.setenv('EDGE_VLM_AX_LIBRARY', str(folder))
    monkeypatch.setattr(library, '_in_use', lambda name: [str(folder / name)])


@pytest.fixture
def on_stub(monkeypatch):
    """Let the stand-in drive the C stub of an AX650; its moods are environment variables."""
    use_stub('ax650', monkeypatch)


@pytest.fixture
def card(monkeypatch, stand_in):
    """Put a card in: the stand-in and the engine drive the C stub of its library; gives its hooks.

    Fails where something is left on the card.
    """
    folder = build_card_stub()
    stub = Stub(folder, CARD_LIBRARY)
    stub.reset_options()
    stub.reset_counts()
    monkeypatch.setattr(library, '_in_use', lambda name: [str(folder / name)])
    stand_in(library=folder)
    yield stub
    left = {name: stub.count(name) for name in ('blocks', 'handles', 'ios')}
    stub.reset_options()
    assert not any(left.values()), f'left behind: {left}'


def _forget():
    """End what a test's import started, and forget the modules."""
    for name in ('_axe', '_axclrt_c'):
        on_chip = sys.modules.get(f'axengine.{name}')
        if on_chip is not None:
            on_chip.end_for_tests()
    for name in [name for name in sys.modules if name.partition('.')[0] == 'axengine']:
        del sys.modules[name]


@pytest.fixture(params=['portable', 'in_place'])
def backend(request, stand_in, monkeypatch):
    """Make either backend possible and give its name, an option of the engine.

    Portable runs on libraries written in Python; in place needs the vendor's C interface, which
    the C stub has.
    """
    if request.param == 'in_place':
        use_stub('ax650', monkeypatch)
    return request.param


@pytest.fixture
def open_set(backend, set_files, monkeypatch):
    """Open the engine on a set by kind; closed after the test."""
    from edge_vlm_ros.engines import open_engine

    opened = []

    def make(kind, chip='ax650', **options):
        if chip != 'ax650' and backend == 'in_place':
            use_stub(chip, monkeypatch)
        monkeypatch.setenv('EDGE_VLM_AX_CHIP', chip)
        files = set_files(kind, chip)
        opened.append(open_engine(chip, files, options={'backend': backend, **options}))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()
