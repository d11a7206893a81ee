"""The chip's memory is not overfilled: what is checked before a set is loaded, and while it is."""

import os
from dataclasses import replace

import pytest
from support.axera.driver import weights
from support.axera.layout import layer_groups
from support.axera.plain import stack_shapes
from support.axera.sets import NINE

from edge_vlm_ros.core import DeviceError, ModelFiles
from edge_vlm_ros.engines.axera.chip_memory import free_bytes_of
from edge_vlm_ros.engines.axera.memory_guard import (
    KEPT_FREE,
    MemoryGuard,
    buffer_bytes,
    in_place_bytes,
    needed_bytes,
)
from edge_vlm_ros.engines.axera.runtime import ShapeGroup, TensorInfo

pytestmark = pytest.mark.axera
MIB = 1 << 20
LAYERS = 10


@pytest.fixture
def files(tmp_path):
    """A set of ten layers of 50 MiB, a head of 100, a tower of 200: files of holes."""
    sizes = {f'layers.{i}': 50 for i in range(LAYERS)}
    sizes |= {'post': 100, 'vision_encoder': 200, 'embed_tokens': 900}
    weights = {part: tmp_path / part for part in sizes}
    for part, path in weights.items():
        path.touch()
        os.truncate(path, sizes[part] * MIB)
    return ModelFiles('big', 'ax650', tmp_path, tmp_path, weights)


def guard(files, *free_mib):
    values = iter(free_mib)
    return MemoryGuard(files, lambda: None if (v := next(values)) is None else v * MIB, 'here')


@pytest.mark.parametrize(
    ('measured_mib', 'needed'), [(0, 1040), (1000, 1040), (1041, 1041), (2000, 2000)]
)
def test_needed_is_the_larger_of_what_was_measured_and_the_files_with_a_third(
    files, measured_mib, needed
):
    known = replace(files, device_memory_mb=measured_mib)
    assert needed_bytes(known) == needed * MIB
    guard(known, needed + 128).check_files()
    with pytest.raises(
        DeviceError, match=rf'needs {needed} MiB .*{needed + 127} MiB are free \(h'
    ):
        guard(known, needed + 127).check_files()


def test_buffers_and_caches_are_counted_once_they_are_known(files):
    one = guard(files, 1200)
    one.check_files()
    one.check_buffers((1200 - 128 - 800) * MIB)
    with pytest.raises(DeviceError, match='273 MiB of these for its buffers and caches'):
        one.check_buffers((1200 - 128 - 800 + 1) * MIB)


@pytest.mark.parametrize(('after_four', 'fits'), [(1400, True), (620, True), (610, False)])
def test_four_layers_tell_what_all_of_them_take(files, after_four, fits):
    """Three layers took three times 60; six more and the head, 130, leave 128 free or not."""
    seen = []
    one = guard(files, 2000, after_four + 180, after_four)
    one.check_files()
    on_layer = one.watch(lambda: seen.append(1))
    for _ in range(3):
        on_layer()
    if fits:
        on_layer()
        on_layer()  # nothing is read any more
    else:
        with pytest.raises(
            DeviceError, match=r'needs 490 MiB .*for the rest, as its first 4 layer'
        ):
            on_layer()
    assert len(seen) == (5 if fits else 4)


def test_where_free_memory_is_not_reported_nothing_is_checked(files):
    one = guard(files, None)
    one.check_files()
    one.check_buffers(1 << 40)
    for _ in range(LAYERS):
        one.watch(lambda: None)()


def test_what_a_set_takes_in_place_is_what_is_counted():
    """Of InternVL3-2B: 73 MB of caches, 5 of masks, 1 of hidden states."""
    layout = replace(NINE, chunk=128, histories=tuple(range(0, 2049, 128)), capacities=(2559,))
    sizes = {'layers': 28, 'hidden': 1536, 'kv_width': 256, 'vocab': 151674}
    shapes = replace(stack_shapes(layout, weights()), **sizes)
    assert 75 * MIB < in_place_bytes(shapes) < 82 * MIB
    groups = [
        ShapeGroup(tuple(map(info, group.inputs)), tuple(map(info, group.outputs)))
        for group in layer_groups(layout, 1536, 256)
    ]
    assert buffer_bytes('auto', shapes, groups) == in_place_bytes(shapes)
    assert buffer_bytes('portable', shapes, groups) == pytest.approx(114_980_084, rel=0.03)


def info(tensor):
    dtype = {'bf16': 'bfloat16', 'u32': 'uint32'}[tensor.dtype]
    return TensorInfo(tensor.name, tensor.shape, dtype)


class TestWhatIsFree:
    """Of a card, as its tool prints it; source of the text: the vendor's axcl-smi guide."""

    @pytest.fixture
    def tool(self, tmp_path, monkeypatch):
        def put(script):
            path = tmp_path / 'axcl-smi'
            path.write_text(f'#!/bin/sh\n{script}\n')
            path.chmod(0o755)
            monkeypatch.setenv('PATH', str(tmp_path), prepend=os.pathsep)

        return put

    def test_a_card_is_asked_by_its_number(self, tool):
        tool(
            'test "$*" = "info --cmm -d 1" || exit 1\n'
            "printf 'Device ID           : 129 (0x81)\\nCMM Total           :  7208960 KiB\\n"
            "CMM Used            :    18876 KiB\\nCMM Remain          :  7190084 kiB\\n'"
        )
        assert free_bytes_of(1) == 7190084 << 10
        assert free_bytes_of(0) is None

    @pytest.mark.parametrize('script', ['exit 3', 'echo no device', 'printf "\\377"'])
    def test_a_card_that_tells_nothing_is_not_reported(self, tool, script):
        tool(script)
        assert free_bytes_of(0) is None

    def test_the_boards_own_chip_is_read(self, tmp_path):
        told = tmp_path / 'mem_cmm_info'
        told.write_text(' total size=7208960KB(x),used=18876KB(x),remain=7190084KB(x)\n')
        assert free_bytes_of(None, told) == 7190084 << 10


def test_what_stays_free_is_at_least_128_mb():
    assert KEPT_FREE >= 128_000_000
