"""The portable backend: what goes in, what is kept, what a stop leaves."""

import numpy as np
import pytest

from edge_vlm_ros.core import CancelledError, ModelFileError
from edge_vlm_ros.engines.axera.graphs import read_stack
from edge_vlm_ros.engines.axera.portable import PortableBackend
from edge_vlm_ros.engines.axera.runtime import Session, open_device
from edge_vlm_ros.engines.base import never
from edge_vlm_ros.engines.bf16 import to_bf16

pytestmark = pytest.mark.axera


@pytest.fixture
def opened(stand_in, set_files):
    """Open a set: `opened('tiny')` gives backend and shapes."""
    stand_in()
    backends = []

    def make(kind, **changes):
        files = set_files(kind)

        def open_session(path):
            return Session(open_device('ax650'), path)

        first, post = open_session(files.weights['layers.0']), open_session(files.weights['post'])
        layers = sum(part.startswith('layers.') for part in files.weights)
        shapes = read_stack(first, layers, post)
        first.close()
        post.close()
        backends.append(PortableBackend(open_session, files, shapes, **changes))
        return backends[-1], shapes

    yield make
    for backend in backends:
        backend.close()


def embeds(tokens, shapes, seed=0):
    random = np.random.default_rng(seed)
    return to_bf16(random.normal(size=(tokens, shapes.hidden)).astype(np.float32))


def positions(start, tokens):
    return np.arange(start, start + tokens, dtype=np.uint32)


def prefill(backend, shapes, rows, start=0, *, stop=never, history=None):  # noqa: PLR0913
    group = next(g for g in shapes.prefill if g.history >= (start if history is None else history))
    backend.prefill(group, rows, positions(start, len(rows)), start, stop)


def test_each_file_is_told(opened):
    loaded = []
    _, shapes = opened('tiny', on_file=lambda: loaded.append(1))
    assert len(loaded) == shapes.layers + 1


def test_only_valid_rows_reach_the_caches(opened):
    backend, shapes = opened('tiny')
    prefill(backend, shapes, embeds(5, shapes))
    assert backend._keys[:, :5].any(axis=(1, 2)).all()
    assert not backend._keys[:, 5:].any()
    assert not backend._values[:, 5:].any()


def test_what_padding_computes_is_never_seen(opened, monkeypatch):
    """A chip may leave anything in the rows of padding, NaN too."""
    backend, shapes = opened('tiny')
    rows, said = embeds(21, shapes), embeds(3, shapes, seed=1)

    def answer():
        prefill(backend, shapes, rows[:16])
        prefill(backend, shapes, rows[16:], start=16)
        for i in range(3):
            backend.step(shapes.decode[0], said[i], positions(21 + i, 1), 21 + i)
        return backend.head().copy()

    expected = answer()
    assert np.isfinite(expected).all()
    run = Session.run

    def spoiled(session, group, feeds):
        results = run(session, group, feeds)
        mask = next((feeds[name] for name in feeds if name.startswith('mask')), None)
        if mask is not None and mask.shape[1] > 1:
            padding = (mask[0] != 0).all(axis=1)
            for array in results:
                array[0, padding] = 0x7FC0  # NaN
        return results

    monkeypatch.setattr(Session, 'run', spoiled)
    np.testing.assert_array_equal(answer(), expected)


def test_a_chunk_starts_at_any_row_and_in_any_group_with_history_enough(opened):
    backend, shapes = opened('tiny')
    rows = embeds(20, shapes)
    prefill(backend, shapes, rows[:13])
    prefill(backend, shapes, rows[13:], start=13)
    expected = backend.head().copy()
    prefill(backend, shapes, rows[:13])
    prefill(backend, shapes, rows[13:], start=13, history=96)
    np.testing.assert_allclose(backend.head(), expected, atol=0.05)


@pytest.mark.parametrize('layers', [0, 1])
def test_a_stop_is_heard_before_every_layer(opened, layers):
    backend, shapes = opened('tiny')
    asked = []

    def stop():
        asked.append(1)
        return len(asked) > layers

    with pytest.raises(CancelledError):
        prefill(backend, shapes, embeds(5, shapes), stop=stop)
    assert len(asked) == layers + 1
    written = backend._keys.any(axis=(1, 2))
    assert written.tolist() == [i < layers for i in range(shapes.layers)]


def test_layers_of_another_build_are_refused(opened):
    from axengine._python_library import LEDGER

    with pytest.raises(ModelFileError, match=r'l1_together.axmodel: shape groups: .*found 18'):
        opened('tiny-mixed-builds')
    assert LEDGER.held_bytes == 0


def test_closing_twice_is_safe(opened):
    from axengine._python_library import LEDGER

    backend, _ = opened('tiny')
    assert LEDGER.held_bytes > 0
    backend.close()
    backend.close()
    assert LEDGER.held_bytes == 0
