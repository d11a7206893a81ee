"""Which snapshots are kept of a cache that cannot be cut, and which one makes room."""

import pytest

from edge_vlm_ros.core import join_parts, text_part
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model
from edge_vlm_ros.serving.kv_slots import KvSlots


class Kept:
    """Slots over a scripted state, and prompts of plain numbers."""

    def __init__(self, snapshots, slots=1):
        limits = {'can_truncate': False, 'snapshots': snapshots, 'kv_slots': slots}
        script = Script.from_mapping({'limits': {**limits, 'prefill_chunk': 7}})
        self.engine = ScriptedEngine(find_model('scripted'), script)
        self.slots = KvSlots(self.engine, lambda key: True)

    @property
    def snapshots(self):
        return sorted(self.engine.kv._snapshots)

    def append(self, prompt):
        pieces = self.slots.plan(prompt)
        at = self.engine.kv.length
        for piece in pieces:
            part = prompt.slice(at, at + piece)
            self.engine.prefill(part, {})
            self.slots.append(part, ())
            at += piece
        return pieces

    def ready(self, prefix):
        begun = self.slots.begin_ahead(prefix, ())
        if begun.reused < len(prefix):
            self.append(prefix)
        self.slots.is_whole(len(prefix))
        return begun

    def ask(self, prefix, words):
        prompt = join_parts((prefix, text_part(words, len(prefix))))
        begun = self.slots.begin(prompt, (), len(words))
        self.append(prompt)
        return begun


@pytest.fixture
def kept():
    made = []

    def make(snapshots, slots=1):
        made.append(Kept(snapshots, slots))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()


PREFIX = text_part(range(20), 0)


def test_a_prompt_is_cut_into_pieces_where_it_is_kept(kept):
    state = kept(3)
    state.ask(PREFIX, [1, 2, 3])
    assert state.snapshots == [20]
    assert state.ask(PREFIX, [4, 5]).reused == 20
    other = text_part([*range(9), *[60] * 6], 0)
    assert state.ask(other, [1, 2]).reused == 0, 'nothing was kept where they part'
    assert state.snapshots == [9, 15], 'but is from now on'
    assert state.ask(text_part([*range(9), 70], 0), [1]).reused == 9


def test_the_wanted_prefix_stays_and_the_least_useful_other_makes_room(kept):
    state = kept(2)
    state.ready(PREFIX)
    state.ask(PREFIX, range(30, 40))
    state.slots.keep()
    assert state.snapshots == [20, 30]
    state.engine.decode(5, 30)
    state.slots.append(text_part([5], 30), ())
    state.slots.keep()
    assert state.snapshots == [20, 31], 'of 20, which is ready, and 30, which saves 10 tokens'
    assert state.ready(PREFIX).reused == 20
    assert state.ask(PREFIX, [1]).reused == 20


def test_with_room_for_one_what_is_needed_now_takes_the_place_of_what_was_ready(kept):
    state = kept(1)
    state.ready(PREFIX)
    state.ask(PREFIX, [7, 8])
    state.slots.keep()
    assert state.snapshots == [22]
    again = state.ready(PREFIX)
    assert again.reused == 0, 'made again'
    assert state.snapshots == [20]


def test_to_cut_says_how_far_back_it_went(kept):
    state = kept(2)
    state.ask(PREFIX, [7, 8, 9])
    assert state.slots.cut(22) == 20
    assert state.engine.kv.length == 20
    without = kept(0)
    without.ask(PREFIX, [7, 8, 9])
    assert without.slots.cut(22) == 0
    assert not without.slots.can_go_back
