"""The in-place backend on the stub: right through incoherent memory, few bytes, no leak."""

import ctypes
import shutil
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from support.axera import sets
from support.axera.driver import LAYOUTS, WAYS, Driver, caller, everything, weights
from support.axera.plain import stack_shapes
from support.axera.stub.chip import stub_chip

from edge_vlm_ros.core import CancelledError, DeviceError, ModelFileError
from edge_vlm_ros.engines.axera.board import Board
from edge_vlm_ros.engines.axera.in_place import InPlaceBackend
from edge_vlm_ros.engines.axera.library import IoMeta
from edge_vlm_ros.engines.axera.masks import PrefillMask
from edge_vlm_ros.engines.axera.memory import Block
from edge_vlm_ros.engines.axera.memory_guard import KEPT_FREE
from edge_vlm_ros.engines.axera.model import Model, _tensor
from edge_vlm_ros.engines.axera.rows import CopiedRows, DirectRows
from edge_vlm_ros.engines.axera.stack_memory import StepInputs

pytestmark = pytest.mark.axera


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Write each set once."""

    @cache
    def write(name):
        folder = tmp_path_factory.mktemp(name)
        sets.write_set(folder, weights(), LAYOUTS[name])
        return sets.model_files(folder, LAYOUTS[name].chip)

    return write


@pytest.fixture
def chip():
    """A chip whose outputs hold other numbers while inputs are read; fails if memory is left."""
    with stub_chip() as (stub, library):
        stub.set(early_writes=1)
        yield stub, library


@pytest.fixture
def driver(chip, written):
    opened = []

    def start(rows=DirectRows, name='tiny'):
        opened.append(Driver(Board(chip[1]), written(name), LAYOUTS[name], rows))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


class TestAnswers:
    @pytest.mark.parametrize('rows', WAYS)
    @pytest.mark.parametrize('length', [1, 2, 15, 16, 17, 31, 32, 33, 64, 65, 143, 144])
    def test_prompts_around_chunk_borders(self, driver, rows, length):
        one = driver(rows)
        one.prefill_to(length)
        one.check()
        for _ in range(3):
            one.step()
            one.check()

    @pytest.mark.parametrize('rows', WAYS)
    @pytest.mark.parametrize('name', sorted(set(LAYOUTS) - {'tiny-ax630c'}))
    def test_every_layout(self, driver, rows, name):
        one = driver(rows, name)
        one.prefill_to(min(100, one.shapes.capacity - 3))
        one.check()
        one.step()
        one.step()
        one.check()

    def test_the_other_chip(self, written):
        with stub_chip('ax630c') as (_, library):
            one = Driver(
                Board(library), written('tiny-ax630c'), LAYOUTS['tiny-ax630c'], DirectRows
            )
            with closing(one):
                one.prefill_to(40)
                one.step()
                one.check()

    @pytest.mark.parametrize('rows', WAYS)
    def test_a_second_turn_from_an_unaligned_start(self, driver, rows):
        one = driver(rows)
        one.prefill_to(21)
        one.step()
        one.prefill(16)  # rows 22 to 37, after a history of 32
        one.check()
        one.prefill(3)
        one.step()
        one.check()

    @pytest.mark.parametrize('rows', WAYS)
    @pytest.mark.parametrize('back_to', [0, 5, 16, 33])
    def test_after_truncation_stale_rows_do_not_count(self, driver, rows, back_to):
        one = driver(rows)
        one.prefill_to(70)
        one.step()
        one.length = back_to
        one.step()  # masks only shrink here
        one.check()
        one.length = back_to
        one.prefill(7)
        one.check()
        one.step()
        one.check()

    def test_both_ways_give_the_same_bits(self, driver):
        found = []
        for rows in WAYS:
            one = driver(rows)
            one.prefill_to(37)
            one.step()
            found.append(one.check())
        assert np.array_equal(*found)

    def test_the_cache_can_be_filled_to_its_last_row(self, driver):
        one = driver(DirectRows, 'tight')
        one.prefill_to(51)  # the last chunk's padding would run past the buffer
        while one.length < 55:
            one.step()
        one.check()

    def test_only_direct_rows_move_no_row_through_the_processor(self, chip, driver):
        one = driver(DirectRows)
        one.prefill_to(16)
        chip[0].reset_counts()
        one.prefill(16)  # disjoint from its history
        direct = chip[0].count('AX_SYS_MinvalidateCache')
        one.prefill(3)
        chip[0].reset_counts()
        one.prefill(16)  # reads rows that it would write
        assert direct == 1  # the last hidden state
        assert chip[0].count('AX_SYS_MinvalidateCache') == 1 + 2 * one.shapes.layers


@pytest.mark.parametrize('rows', WAYS)
@pytest.mark.parametrize('padding', [64, 4096])
def test_a_driver_that_pads_tensors_gets_the_room(chip, driver, rows, padding):
    """Output padding is written to before the real bytes come: it must belong to the block."""
    chip[0].set(pad_bytes=padding)
    one = driver(rows, 'tight')
    one.prefill_to(51)
    while one.length < 55:
        one.step()
    one.check()
    assert chip[0].count('refused') == 0


def test_a_tensor_smaller_than_its_shape_is_refused():
    shape = (ctypes.c_int32 * 2)(3, 5)
    meta = IoMeta(name=b'mask', shape=shape, rank=2, data_type=9, size=29)
    with pytest.raises(ModelFileError, match=r'tensor mask of shape \[3, 5\] has 29 bytes'):
        _tensor(Path('l0.axmodel'), meta, 0)
    meta.size = 40
    assert (_tensor(Path('l0.axmodel'), meta, 0).filled, meta.size) == (30, 40)


def test_three_rows_of_positions_reach_the_chip(chip):
    stub, library = chip
    mask, indices = Block(library, 16 * 32 * 2, 'mask'), Block(library, 3 * 16 * 4, 'indices')
    positions = np.arange(15, dtype=np.uint32).reshape(3, 5)
    inputs = StepInputs(PrefillMask(16, 16), mask, indices, 3)
    inputs.write(positions, 7)
    seen = stub.device_bytes(indices.phy, indices.nbytes).view(np.uint32).reshape(3, 16)
    assert np.array_equal(seen[:, :5], positions)
    assert not seen[:, 5:].any()
    indices.close()
    mask.close()


class TestGivenUp:
    def test_a_chunk_given_up_leaves_what_was_cached(self, driver):
        one = driver()
        one.prefill_to(20)
        asked = []
        with pytest.raises(CancelledError):
            one.prefill(9, lambda: asked.append(1) or len(asked) > 2)
        assert len(asked) == 3  # before each layer
        with pytest.raises(DeviceError, match='no hidden state is kept'):
            one.backend.head()
        one.step()
        one.check()

    def test_a_chip_that_fails_says_so_and_may_go_on(self, chip, driver):
        stub, _ = chip
        one = driver()
        one.prefill_to(20)
        stub.set(runs_left=2)
        with pytest.raises(DeviceError, match=r'l2_together\.axmodel: the run failed'):
            one.step()
        with pytest.raises(DeviceError, match='no hidden state is kept'):
            one.backend.head()
        stub.set(runs_left=1000)
        one.step()
        one.check()


# --- every flush and invalidate is needed ------------------------------------------------------


@pytest.mark.parametrize('rows', WAYS)
def test_without_any_one_flush_or_invalidate_answers_are_wrong(chip, written, monkeypatch, rows):
    _, library = chip
    files = written('tight')
    sites, skipped = [], []
    for name in ('flush', 'invalidate'):
        real = getattr(Block, name)

        def watched(self, offset, nbytes, real=real):
            site = caller()
            if site not in sites:
                sites.append(site)
            if site not in skipped:
                real(self, offset, nbytes)

        monkeypatch.setattr(Block, name, watched)
    right = everything(Board(library), files, rows)
    assert np.array_equal(everything(Board(library), files, rows), right)
    survivors = []
    for site in sites:
        skipped[:] = [site]
        if np.array_equal(everything(Board(library), files, rows), right):
            survivors.append(site)
    assert len(sites) >= 10
    assert survivors == []


# --- bytes -------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def internvl3_2b(tmp_path_factory):
    return sets.model_files(sets.write_internvl3_2b(tmp_path_factory.mktemp('internvl3-2b')))


INTERNVL3_2B = replace(
    sets.NINE, chunk=128, histories=tuple(range(0, 2049, 128)), capacities=(2559,)
)
LAYERS, HIDDEN, KV, VOCAB = 28, 1536, 256, 151674


@pytest.mark.parametrize(
    ('rows', 'row_bytes'), [(DirectRows, 0), (CopiedRows, LAYERS * 2 * KV * 2)]
)
def test_a_decode_step_moves_hardly_more_than_it_must(internvl3_2b, rows, row_bytes):
    shapes = replace(
        stack_shapes(INTERNVL3_2B, weights()),
        layers=LAYERS, hidden=HIDDEN, kv_width=KV, vocab=VOCAB,
    )  # fmt: skip
    with (
        stub_chip(computes=False) as (stub, library),
        closing(InPlaceBackend(Board(library), internvl3_2b, shapes, rows)) as backend,
    ):
        for row in range(100, 110):
            if row == 105:
                stub.reset_counts()
            backend.step(shapes.decode[0], np.zeros(HIDDEN, np.uint16), np.array([row]), row)
            backend.head()
        # Hidden state, change of the mask, logits, K and V; the chip sees lines of 64 bytes.
        least = HIDDEN * 2 + 2 + VOCAB * 2 + row_bytes
        flushed, invalidated = stub.count('bytes_flushed'), stub.count('bytes_invalidated')
        assert flushed + invalidated <= 1.1 * 5 * least
        assert flushed == 5 * (HIDDEN * 2 + 64 + 64 + row_bytes)
        assert invalidated == 5 * (-(-VOCAB * 2 // 64) * 64 + row_bytes)
        assert stub.count('partial_lines') == 0
        assert stub.count('runs') == 5 * (LAYERS + 1)


# --- memory ------------------------------------------------------------------------------------


class TestMemory:
    def test_reloading_gives_everything_back(self, chip, written):
        stub, library = chip
        for _ in range(3):
            one = Driver(Board(library), written('tiny'), sets.NINE, DirectRows)
            one.prefill_to(20)
            one.close()
            one.close()
            assert stub.count('blocks') == 0
            assert stub.count('handles') == 0
        assert stub.count('blocks_allocated') == stub.count('blocks_freed') > 0
        assert stub.count('refused') == 0

    def test_opening_gives_everything_back_wherever_memory_ends(self, chip, written):
        stub, library = chip
        files = written('tiny')
        with closing(Driver(Board(library), files, sets.NINE, DirectRows)):
            needed = stub.count('bytes')
        stub.reset_counts()
        for room in np.linspace(0, needed - 1, 25).astype(int).tolist():
            stub.set(cmm_bytes=room)
            with pytest.raises(DeviceError, match='of memory left for'):
                Driver(Board(library), files, sets.NINE, DirectRows)
            assert stub.count('bytes') == 0
            assert stub.count('handles') == 0

    @pytest.mark.parametrize('part', ['layers.0', 'layers.2', 'post'])
    @pytest.mark.parametrize('damage', ['missing', 'cut off', 'of another kind'])
    def test_a_damaged_file_is_named_and_the_others_are_closed(
        self, chip, written, tmp_path, part, damage
    ):
        _, library = chip
        files = written('tiny')
        path = tmp_path / 'this_one.axmodel'
        if damage == 'cut off':
            path.write_bytes(files.weights[part].read_bytes()[:200])
        elif damage == 'of another kind':
            shutil.copy(files.weights['vision_encoder'], path)
        broken = replace(files, weights={**files.weights, part: path})
        # Behind a file that loaded, a driver's refusal may be the chip's.
        is_doubtful = damage == 'cut off' and part != 'layers.0'
        wanted = DeviceError if is_doubtful else ModelFileError
        with pytest.raises(wanted, match=r'this_one\.axmodel.*'):
            Driver(Board(library), broken, sets.NINE, DirectRows)

    def test_a_chip_that_is_full_or_busy_is_no_damaged_file(self, chip, written, tmp_path):
        _, library = chip
        path, info = tmp_path / 'l0.axmodel', tmp_path / 'mem_cmm_info'
        path.write_bytes(bytes(100_000))  # the driver refuses it
        library.cmm_info = info
        for free_kb, wanted in ((200, ModelFileError), (90, DeviceError)):
            info.write_text(f' total size=1024KB(1MB),used=1KB(0MB + 1KB),remain={free_kb}KB(0MB)')
            with pytest.raises(wanted, match=r'l0\.axmodel.*CreateHandleV2 failed'):
                Model(library, path)
        library.cmm_info = tmp_path / 'none'
        with pytest.raises(ModelFileError):
            Model(library, path)
        Model(library, written('tiny').weights['layers.0']).close()
        with pytest.raises(DeviceError, match=r'chip memory full, or the NPU is busy'):
            Model(library, path)

    def test_no_context_for_a_file_is_told_as_the_chips(self, chip, written, monkeypatch):
        stub, library = chip
        files = written('tiny').weights
        with closing(Model(library, files['layers.0'])):
            monkeypatch.setitem(library._functions, 'AX_ENGINE_CreateContextV2', lambda *_: -1)
            with pytest.raises(DeviceError, match=r'memory full, or .*CreateContextV2 failed'):
                Model(library, files['layers.1'])
        assert stub.count('handles') == 0

    @pytest.mark.parametrize(
        'name', ['tiny-irregular', 'tiny-fixed', 'tiny-17', 'tiny-ax630c', 'tight']
    )
    def test_a_layer_of_another_build_is_named(self, chip, written, name):
        _, library = chip
        files = written('tiny')
        other = written(name).weights['layers.1']
        mixed = replace(files, weights={**files.weights, 'layers.1': other})
        # The driver refuses another chip's file as it refuses one when it is full.
        wanted = DeviceError if name == 'tiny-ax630c' else ModelFileError
        with pytest.raises(wanted, match=r'l1_together.*(another build|another chip)'):
            Driver(Board(library), mixed, sets.NINE, DirectRows)

    def test_a_driver_that_fails_to_free_does_not_keep_the_rest(self, chip, written):
        stub, library = chip
        one = Driver(Board(library), written('tiny'), sets.NINE, DirectRows)
        lost = one.backend._memory.dummy
        library.call('AX_SYS_MemFree', lost.phy, lost.vir)
        with pytest.raises(DeviceError, match='AX_SYS_MemFree failed'):
            one.close()
        one.close()
        assert stub.count('blocks') == 0

    def test_caches_take_what_they_must_and_shared_memory_little(self, chip, written):
        stub, library = chip
        with closing(Driver(Board(library), written('tiny'), sets.NINE, DirectRows)) as one:
            caches = one.shapes.layers * 2 * 319 * 32 * 2
            assert caches < stub.count('bytes') < caches + 120_000


class TestSlots:
    """Two prompts side by side, in caches of their own."""

    @pytest.mark.parametrize('rows', WAYS)
    @pytest.mark.parametrize('name', ['tiny', 'tight', 'tiny-decode-groups', 'tiny-irregular'])
    def test_each_is_answered_as_if_it_were_the_only_one(self, chip, written, name, rows):
        _, library = chip
        with closing(Driver(Board(library), written(name), LAYOUTS[name], rows)) as one:
            for slot, length in ((0, 20), (1, 33), (0, 37), (1, 35)):
                one.select(slot)
                one.prefill_to(length)
                one.check()
                one.step()
                one.check()
            one.select(0)
            one.length = 21  # cut, and the same rows again beside the other slot's
            one.prefill_to(30)
            one.check()
            one.select(1)
            one.step()
            one.check()

    def test_a_prefill_given_up_in_one_leaves_the_other_alone(self, chip, written):
        _, library = chip
        with closing(Driver(Board(library), written('tiny'), sets.NINE, DirectRows)) as one:
            one.prefill_to(20)
            one.select(1)
            one.prefill_to(16)
            layers = iter([False, False, True])
            with pytest.raises(CancelledError):
                one.prefill(8, lambda: next(layers))
            one.select(0)
            one.step()
            one.check()
            one.select(1)
            one.prefill(8)
            one.check()

    def test_memory_is_taken_when_a_slot_is_first_selected_and_then_kept(self, chip, written):
        stub, library = chip
        with closing(Driver(Board(library), written('tiny'), sets.NINE, DirectRows)) as one:
            before, slot_bytes = stub.count('bytes'), one.backend.slot_bytes
            assert slot_bytes == one.shapes.layers * 2 * 319 * 32 * 2
            one.select(1)
            assert stub.count('bytes') == pytest.approx(before + slot_bytes, rel=0.01)
            taken = stub.count('bytes')
            for slot in (0, 1, 0):
                one.select(slot)
            assert stub.count('bytes') == taken
        assert stub.count('bytes') == 0

    def test_where_memory_ends_the_slot_that_was_selected_still_is(self, chip, written):
        stub, library = chip
        with closing(Driver(Board(library), written('tiny'), sets.NINE, DirectRows)) as one:
            one.prefill_to(20)
            before = stub.count('bytes')
            for room in np.linspace(0, one.backend.slot_bytes - 1, 9).astype(int).tolist():
                stub.set(cmm_bytes=before + room)
                with pytest.raises(DeviceError, match=r'of memory left for (keys|values) of'):
                    one.backend.select(1)
                assert stub.count('bytes') == before
            one.step()
            one.check()
            stub.set(cmm_bytes=before + 2 * one.backend.slot_bytes)
            one.select(1)
            one.prefill_to(20)
            one.check()

    def test_a_second_one_is_offered_where_the_chip_has_room_to_spare(
        self, chip, written, tmp_path
    ):
        _, library = chip
        info = tmp_path / 'mem_cmm_info'
        library.cmm_info = info
        with closing(Driver(Board(library), written('tiny'), sets.NINE, DirectRows)) as one:
            backend = one.backend
            assert backend.offer_slots(0) == 1, 'the driver does not say how much is free'
            kb = -(-2 * backend.slot_bytes // 1024) + KEPT_FREE // 1024
            for free_kb, slots in ((kb - 1, 1), (kb, 2)):
                info.write_text(
                    f' total size=999999KB(9MB),used=1KB(0MB + 1KB),remain={free_kb}KB'
                )
                assert backend.offer_slots(0) == slots
            assert backend.offer_slots(3) == 3, 'as the user says'
            backend.takes_slots = False
            assert backend.offer_slots(3) == 1, 'but not where the driver does not follow'
