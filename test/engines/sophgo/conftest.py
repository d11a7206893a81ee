"""Compiled models, unpacked once a session; and calls on the emulator of their chip."""

from functools import partial

import pytest
from support.sophgo import emulator
from support.sophgo.fixtures import FIXTURES


@pytest.fixture(scope='session')
def bmodel(tmp_path_factory):
    """Return a function from a fixture's name to its unpacked bmodel."""
    folder = tmp_path_factory.mktemp('bmodel')
    return lambda name: FIXTURES[name].unpack(folder)


@pytest.fixture(params=emulator.CHIPS)
def on_chip(request):
    """Call a function of the test's file in a process with an emulated chip; for each chip."""
    return partial(emulator.call, request.param)
