"""Cards on a stub of their library: host and device memory apart, every byte between counted."""

import threading
from contextlib import closing
from ctypes import byref, c_void_p
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.axera import sets
from support.axera.driver import LAYOUTS, WAYS, Driver, caller, everything, weights
from support.axera.plain import embed, plain_logits, stack_shapes
from support.axera.prompts import answer

from edge_vlm_ros.core import DeviceError, ModelFileError, SetupError, text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.axera import card_library
from edge_vlm_ros.engines.axera.card import Card, CardBlock, CardModel
from edge_vlm_ros.engines.axera.card_library import CardLibrary
from edge_vlm_ros.engines.axera.in_place import InPlaceBackend
from edge_vlm_ros.engines.axera.rows import CopiedHistories, CopiedRows, DirectRows
from edge_vlm_ros.engines.axera.runtime import Session, open_device

pytestmark = pytest.mark.axera
LAYERS = len(weights().layers)


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    """Write each set once."""

    @cache
    def write(name):
        folder = tmp_path_factory.mktemp(name)
        sets.write_texts(folder, sets.TINY)
        sets.write_set(folder, weights(), LAYOUTS[name])
        return sets.model_files(folder, LAYOUTS[name].chip)

    return write


@pytest.fixture
def chip(card, written):
    """The card with one of axengine's sessions open, as the engine finds it."""
    card.set(early_writes=1)
    with closing(Session(open_device('ax650'), written('tiny').weights['vision_encoder'])):
        yield Card(CardLibrary(), 0)


@pytest.fixture
def load(card, written, caplog):
    """Open the engine on the card; closed after the test."""
    caplog.set_level('INFO')
    opened = []

    def make(name='tiny', **options):
        opened.append(open_engine('ax650', written(name), options=options))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


def answers(engine, lengths=(5, 16, 33, 70)):
    found = []
    for length in lengths:
        engine.kv.truncate(0)
        tokens, scores = answer(engine, text_part(range(40, 40 + length), 0))
        found.append((tokens, scores))
    return found


@pytest.fixture(scope='module')
def right():
    """Give the logits after a prompt of so many tokens, by the model run at once."""

    def logits(length):
        return plain_logits(weights(), embed(weights(), np.arange(40, 40 + length)))[-1]

    return logits


def are_right(engine, right):
    for (tokens, scores), length in zip(answers(engine), (5, 16, 33, 70), strict=True):
        assert np.abs(scores[0] - right(length)).max() < 0.05
        assert tokens[0] == right(length).argmax()


class TestInPlace:
    @pytest.mark.parametrize('rows', [*WAYS, CopiedHistories])
    @pytest.mark.parametrize('name', ['tiny', 'tight', 'tiny-irregular', 'tiny-decode-groups'])
    def test_answers_are_those_of_the_model_run_at_once(self, chip, written, name, rows):
        with closing(Driver(chip, written(name), LAYOUTS[name], rows)) as one:
            for length in (5, 21, 37):  # whole and padded chunks, one on rows that it would write
                one.prefill_to(length)
                one.check()
                one.step()
                one.check()
            one.length = 9
            one.step()
            one.check()

    def test_two_prompts_lie_side_by_side(self, chip, written):
        with closing(Driver(chip, written('tiny'), LAYOUTS['tiny'], DirectRows)) as one:
            for slot, length in ((0, 20), (1, 33), (0, 37), (1, 35)):
                one.select(slot)
                one.prefill_to(length)
                one.check()
                one.step()
                one.check()

    def test_another_thread_may_go_on(self, chip, written):
        with closing(Driver(chip, written('tiny'), LAYOUTS['tiny'], DirectRows)) as one:
            one.prefill_to(20)
            found = []
            thread = threading.Thread(target=lambda: (one.step(), found.append(one.check())))
            thread.start()
            thread.join()
            assert len(found) == 1
            one.step()
            one.check()

    @pytest.mark.parametrize('rows', [*WAYS, CopiedHistories])
    def test_without_any_one_copy_answers_are_wrong(self, chip, written, monkeypatch, rows):
        files = written('tight')
        sites, skipped = [], []
        for name in ('flush', 'invalidate', 'take'):
            real = getattr(CardBlock, name)

            def watched(self, *arguments, real=real, name=name):
                site = f'{name} of {caller()}'
                if site not in sites:
                    sites.append(site)
                if site not in skipped:
                    real(self, *arguments)

            monkeypatch.setattr(CardBlock, name, watched)
        right = everything(chip, files, rows)
        survivors = []
        for site in sites:
            skipped[:] = [site]
            if np.array_equal(everything(chip, files, rows), right):
                survivors.append(site)
        assert len(sites) >= 6
        assert survivors == []

    def test_caches_that_are_not_cleared_poison_answers(self, chip, written, monkeypatch):
        monkeypatch.setattr(CardBlock, 'clear', lambda self: None)
        with np.errstate(invalid='ignore', over='ignore'):
            assert np.isnan(everything(chip, written('tight'), DirectRows)).any()

    def test_reloading_gives_everything_back_wherever_memory_ends(self, card, chip, written):
        files = written('tiny')
        levels = {name: card.count(name) for name in ('bytes', 'handles', 'ios')}
        with closing(Driver(chip, files, LAYOUTS['tiny'], DirectRows)) as one:
            one.prefill_to(20)
            needed = card.count('bytes')
        for room in np.linspace(levels['bytes'], needed - 1, 12).astype(int).tolist():
            card.set(cmm_bytes=room)
            with pytest.raises(DeviceError, match='of memory left for'):
                Driver(chip, files, LAYOUTS['tiny'], DirectRows)
            assert {name: card.count(name) for name in levels} == levels
        assert card.count('refused') == 12  # the allocation at which memory ended

    def test_a_card_that_fails_says_so_and_may_go_on(self, card, chip, written):
        with closing(Driver(chip, written('tiny'), LAYOUTS['tiny'], DirectRows)) as one:
            one.prefill_to(20)
            card.set(runs_left=2)
            with pytest.raises(DeviceError, match=r'l2_together\.axmodel: the run failed'):
                one.step()
            card.set(runs_left=1000)
            one.step()
            one.check()

    def test_a_damaged_file_is_named(self, chip, written, tmp_path):
        path = tmp_path / 'this_one.axmodel'
        path.write_bytes(written('tiny').weights['layers.0'].read_bytes()[:200])
        with pytest.raises(ModelFileError, match=r'this_one\.axmodel: the driver cannot load it'):
            chip.open(path)
        chip.open(written('tiny').weights['layers.0']).close()
        with pytest.raises(DeviceError, match=r'chip memory full.*this file is for another'):
            chip.open(path)


def test_what_a_copy_is_asked_for_goes_the_way_that_is_named(card, chip):
    with closing(chip.block(256, 'one')) as one, closing(chip.block(256, 'two')) as two:
        seen = one.view(np.uint8, 256)
        seen[:] = range(256)
        card.reset_counts()
        one.flush(10, 20)
        two.take(one, 10, 100, 20)
        two.view(np.uint8, 256)
        two.invalidate(96, 32)
        crossed = [card.count(f'bytes_{way}') for way in ('to_device', 'on_device', 'to_host')]
        assert crossed == [20, 20, 32]
        assert two.view(np.uint8, 256)[100:120].tolist() == list(range(10, 30))
        assert (two.view(np.uint8, 256)[:96] == 0).all()


# --- the stub refuses what a card does --------------------------------------------------------


class TestStub:
    def test_bytes_cross_in_the_direction_that_is_named_or_not_at_all(self, card, chip):
        library = CardLibrary()
        host = np.zeros(64, np.uint8)
        with closing(chip.block(64, 'one')) as one:
            address = host.ctypes.data
            for to, source, kind in (
                (one.phy, address, card_library.TO_HOST),
                (address, one.phy, card_library.TO_DEVICE),
                (one.phy, address, card_library.ON_DEVICE),
                (one.phy + 1, address, card_library.TO_DEVICE),  # past its end
                (address, one.phy, 0),
            ):
                with pytest.raises(DeviceError, match='axclrtMemcpy failed'):
                    library.call('axclrtMemcpy', to, source, 64, kind)
        assert card.count('bytes_to_device') == card.count('bytes_to_host') == 0

    def test_a_thread_without_a_context_reaches_no_card(self, chip):
        library, found = CardLibrary(), []

        def work():
            for name in ('without', 'with'):
                try:
                    chip.block(64, name).close()
                except DeviceError as error:
                    found.append(error.message)
                library._thread = 0
                library.attach()

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert len(found) == 1
        assert 'of memory left for without' in found[0]

    def test_a_run_wants_its_buffers_and_its_own_io(self, card, chip, written):
        library = CardLibrary()
        files = written('tiny').weights
        with (
            closing(chip.open(files['layers.0'])) as one,
            closing(chip.open(files['post'])) as two,
        ):
            io, other = c_void_p(), c_void_p()
            library.call('axclrtEngineCreateIO', one.info, byref(io))
            library.call('axclrtEngineCreateIO', two.info, byref(other))
            execute = library.function('axclrtEngineExecute')
            assert execute(one.id, one.context, 0, io) != 0  # nothing is bound
            assert execute(one.id, one.context, 0, other) != 0
            assert execute(one.id, two.context, 0, io) != 0
            for each in (io, other):
                library.call('axclrtEngineDestroyIO', each)
        assert card.count('runs') == 0


# --- the trial at load -------------------------------------------------------------------------


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']


class TestTrial:
    @pytest.mark.parametrize(
        'name', ['tiny', 'tiny-17', 'tiny-fixed', 'tiny-irregular', 'tiny-decode-groups']
    )
    def test_where_all_works_rows_are_written_in_place(self, card, load, right, caplog, name):
        card.set(early_writes=1)
        engine = load(name)
        assert engine.backend_name == 'in place'
        assert type(engine._backend._rows) is DirectRows
        assert engine._backend.takes_slots
        assert warnings(caplog) == []
        are_right(engine, right)

    @pytest.mark.parametrize('misbehaviour', [{'latch': 1}, {'refuse_inside': 1}])
    def test_where_buffers_do_not_move_rows_are_copied_on_the_card(
        self, card, load, right, caplog, misbehaviour
    ):
        card.set(**misbehaviour)
        engine = load()
        assert type(engine._backend._rows) is CopiedRows
        assert warnings(caplog) == []
        are_right(engine, right)

    @pytest.mark.parametrize(
        'misbehaviour', [{'refuse_sharing': 1}, {'refuse_on_device': 1, 'refuse_inside': 1}]
    )
    def test_what_does_not_work_in_place_is_portable_with_one_warning(
        self, card, load, right, caplog, misbehaviour
    ):
        card.set(**misbehaviour)
        engine = load()
        assert engine.backend_name == 'portable'
        (said,) = warnings(caplog)
        assert 'all caches are copied at every token' in said
        are_right(engine, right)

    def test_chunks_that_are_stale_in_axengines_buffers_are_not_in_ours(
        self, card, load, right, caplog
    ):
        card.set(stale=1)
        engine = load()
        assert engine.backend_name == 'in place'
        assert engine._backend.takes_chunks
        are_right(engine, right)
        engine.close()
        portable = load(backend='portable')
        assert not portable._backend.takes_chunks
        are_right(portable, right)
        (said,) = warnings(caplog)
        assert 'token by token' in said
        assert 'prefill group' in said

    def test_chunks_that_want_blocks_of_their_own_size_get_them(self, card, load, right, caplog):
        card.set(stale=2)
        engine = load()
        assert type(engine._backend._rows) is CopiedHistories
        assert warnings(caplog) == []
        are_right(engine, right)

    def test_without_the_trial_stale_chunks_would_give_wrong_answers(
        self, card, load, right, monkeypatch
    ):
        monkeypatch.setattr(
            'edge_vlm_ros.engines.axera.choose_backend.find_stale_chunks', lambda *_: ''
        )
        card.set(stale=1)
        with pytest.raises(AssertionError):
            are_right(load(backend='portable'), right)

    def test_where_chunks_are_stale_whatever_is_done_prompts_go_token_by_token(
        self, card, load, right, caplog
    ):
        card.set(stale=3)
        engine = load()
        assert engine.backend_name == 'portable'
        assert not engine._backend.takes_chunks
        assert any('prefill group' in said for said in warnings(caplog))
        are_right(engine, right)

    def test_positions_in_three_rows_reach_the_card(self, card, set_files):
        """Of Qwen2.5-VL, whose decode groups take one row and its chunks three."""
        found = []
        for option in ('in_place', 'portable'):
            files = set_files('tiny-qwen2_5-vl')
            with closing(open_engine('ax650', files, options={'backend': option})) as engine:
                found.append([tokens for tokens, _ in answers(engine, (5, 21))])
        assert found[0] == found[1]
        card.set(stale=3)
        with pytest.raises(DeviceError, match='the single steps of this build take no images'):
            open_engine('ax650', files)

    def test_what_was_asked_for_and_does_not_work_is_refused(self, card, load):
        card.set(refuse_sharing=1)
        with pytest.raises(DeviceError, match='backend in_place was asked for'):
            load(backend='in_place')

    @pytest.mark.parametrize('fault', ['no function', 'no context'])
    def test_a_library_without_what_is_needed_is_portable(
        self, card, load, caplog, monkeypatch, fault
    ):
        if fault == 'no function':
            wanted = {'axclrtEngineNoSuchCall': (), **card_library._CODES}
            monkeypatch.setattr(card_library, '_CODES', wanted)
        else:
            opened = CardLibrary.__init__

            def without(self, *arguments):
                card.library.axclrtResetDevice(0)
                opened(self, *arguments)

            monkeypatch.setattr(CardLibrary, '__init__', without)
        engine = load()
        assert engine.backend_name == 'portable'
        (said,) = warnings(caplog)
        assert (
            'axclrtEngineNoSuchCall' if fault == 'no function' else 'no card is in use'
        ) in said

    def test_an_old_library_says_who_can_act(self, chip, monkeypatch):
        wanted = {'axclrtEngineNoSuchCall': (), **card_library._CODES}
        monkeypatch.setattr(card_library, '_CODES', wanted)
        with pytest.raises(SetupError, match='the axcl package is too old'):
            CardLibrary()


# --- bytes -------------------------------------------------------------------------------------

INTERNVL3_2B = replace(
    sets.NINE, chunk=128, histories=tuple(range(0, 1025, 128)), capacities=(2559,)
)
STACK = {'layers': 28, 'hidden': 1536, 'kv_width': 256, 'vocab': 151674}
LEAST = STACK['hidden'] * 2 + 4 + 2 + STACK['vocab'] * 2
"""An embedding row, its position, one element of the mask; the logits."""


@pytest.fixture(scope='module')
def internvl3_2b(tmp_path_factory):
    folder = tmp_path_factory.mktemp('internvl3-2b')
    return sets.model_files(sets.write_internvl3_2b_nine(folder))


@pytest.mark.parametrize('rows', WAYS)
def test_a_token_brings_hardly_more_than_it_must_over_pcie(card, chip, internvl3_2b, rows):
    card.compute_nothing()
    shapes = replace(stack_shapes(INTERNVL3_2B, weights()), **STACK)
    with closing(InPlaceBackend(chip, internvl3_2b, shapes, rows)) as backend:
        for row in range(100, 106):
            if row == 105:
                card.reset_counts()
            embed, position = np.zeros(STACK['hidden'], np.uint16), np.array([row])
            backend.step(shapes.decode[0], embed, position, row)
            backend.head()
        crossed = card.count('bytes_to_device') + card.count('bytes_to_host')
        assert crossed <= 1.001 * LEAST
        on_card = 0 if rows is DirectRows else 28 * 2 * 256 * 2
        assert card.count('bytes_on_device') == on_card
        assert card.count('runs') == 29
        assert card.count('refused') == 0


def test_a_model_can_be_closed_twice_and_leaves_nothing(card, chip, written):
    model = CardModel(CardLibrary(), written('tiny').weights['layers.0'])
    before = card.count('handles')
    model.close()
    model.close()
    assert card.count('handles') == before - 1
