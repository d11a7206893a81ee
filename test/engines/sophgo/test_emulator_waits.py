"""The emulator waits without burning cores: the preloaded library changes what it is meant to."""

import ctypes
import threading
import time

import pytest
from support.sophgo import emulator

pytestmark = pytest.mark.emulator

STATIC = {chip: f'internvl3_static_bf16_{chip}' for chip in emulator.CHIPS}


def counts():
    """Return how often a poll became a nap and a long sleep a short one; needs the preload."""
    process = ctypes.CDLL(None)
    return {
        name: ctypes.c_long.in_dll(process, f'edge_vlm_{name}').value for name in ('naps', 'looks')
    }


def changed_waits(path):
    """Run one net; return what the library has changed before and by then."""
    from sophon import sail

    before = counts()
    engine = sail.EngineLLM(path, [0])
    name = 'embedding_cache'
    engine.process(
        name, engine.create_max_input_tensors(name), engine.create_max_output_tensors(name)
    )
    return before, counts()


@pytest.mark.parametrize(('chip', 'kind'), [('bm1684x', 'naps'), ('bm1688', 'looks')])
def test_each_chips_way_to_wait_is_changed(chip, kind, bmodel):
    before, after = emulator.call(chip, changed_waits, str(bmodel(STATIC[chip])))
    assert before == {'naps': 0, 'looks': 0}
    assert after[kind] > 0


def waits_of_others():
    """Lock over and over, and sleep, as code that is not the emulator's."""
    import sophon.sail  # noqa: F401, loads the libraries

    lock, libc = threading.Lock(), ctypes.CDLL(None)
    mutex = ctypes.create_string_buffer(64)
    for _ in range(5000):
        libc.pthread_mutex_lock(mutex)
        libc.pthread_mutex_unlock(mutex)
        with lock:
            pass
    began = time.monotonic()
    libc.usleep(300_000)
    libc.sleep(1)
    return counts(), time.monotonic() - began


def test_whoever_else_waits_in_the_process_waits_as_ever():
    changed, slept_s = emulator.call('bm1684x', waits_of_others)
    assert changed == {'naps': 0, 'looks': 0}
    assert slept_s > 1.25
