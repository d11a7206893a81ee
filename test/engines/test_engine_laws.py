"""Every engine refuses what none may do, in the same words; Axera and Sophgo in their folders."""

import pytest
from support.engine_laws import broken_laws

from edge_vlm_ros.core import EdgeVlmError, ModelFileError, text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model

SMALL = Script.from_mapping({'limits': {'context_tokens': 48, 'prefill_chunk': 16}})

# The scripted tower gives what it is asked for, the cache takes M-RoPE's positions as they are,
# and what comes next does not depend on what the answer said.
OF_A_SCRIPT = frozenset(
    {
        'pixels of another size',
        'another number of rows',
        'three rows of positions',
        'other tokens have other scores',
    }
)


def test_the_cpu_engine_keeps_the_laws(tiny_files):
    engine = open_engine('cpu', tiny_files, options={'threads': 1, 'context_tokens': 48})
    assert broken_laws(engine, rows=4, except_for=frozenset()) == []


@pytest.mark.parametrize('slots', [1, 2, 3])
def test_the_scripted_engine_keeps_the_laws(slots):
    limits = {'context_tokens': 48, 'prefill_chunk': 16, 'kv_slots': slots}
    engine = ScriptedEngine(find_model('scripted'), Script.from_mapping({'limits': limits}))
    assert engine.limits.kv_slots == slots
    assert broken_laws(engine, rows=4, except_for=OF_A_SCRIPT) == []


def test_a_cache_that_cannot_be_cut_keeps_the_laws():
    limits = {'context_tokens': 48, 'prefill_chunk': 16, 'can_truncate': False, 'snapshots': 1}
    engine = ScriptedEngine(find_model('scripted'), Script.from_mapping({'limits': limits}))
    assert broken_laws(engine, rows=4, except_for=OF_A_SCRIPT) == []


def test_an_engine_that_cannot_extend_uses_no_prefix():
    limits = {'can_extend_prefix': False, 'prefill_chunk': 0}
    engine = ScriptedEngine(find_model('scripted'), Script.from_mapping({'limits': limits}))
    assert engine.usable_prefix(5, text_part(range(9), 0)) == 0


def test_a_broken_law_is_named():
    class Careless(ScriptedEngine):
        def next_token(self, sampling):
            return self._head(sampling)

    engine = Careless(find_model('scripted'), SMALL)
    broken = broken_laws(engine, rows=4, except_for=OF_A_SCRIPT)
    assert broken == [
        f'{law}: not refused'
        for law in (
            'head before any token',
            'head in a slot that is empty',
            'head after a token in another slot',
            'head after a failure in another slot',
            'head after giving up',
            'head after a failure',
            'head after a failed step',
            'head after a cut',
            'closed: next_token',
        )
    ]


def test_slots_that_share_their_rows_are_found_out():
    class Mixed(ScriptedEngine):
        @property
        def _cache(self):
            return self._caches[0]

    engine = Mixed(find_model('scripted'), SMALL)
    with pytest.raises(EdgeVlmError, match='goes on at position 0, expected 3'):
        broken_laws(engine, rows=4, except_for=OF_A_SCRIPT)


def test_a_head_that_runs_on_another_slots_token_is_named():
    class Mixed(ScriptedEngine):
        def _count(self, tokens):
            super()._count(tokens)
            self._scored_of = {**getattr(self, '_scored_of', {}), self._slot: self.kv.length}

        def select_kv(self, slot):
            super().select_kv(slot)
            self._scored = (slot, getattr(self, '_scored_of', {}).get(slot, -1))

    engine = Mixed(find_model('scripted'), SMALL)
    broken = broken_laws(engine, rows=4, except_for=OF_A_SCRIPT)
    assert 'head after a token in another slot: not refused' in broken


def test_what_a_slot_may_hold_is_asked_for_by_the_script():
    with pytest.raises(ModelFileError, match='kv_slots is 1 or more, not 0'):
        Script.from_mapping({'limits': {'kv_slots': 0}})


def test_the_slots_of_the_cpu_engine_are_an_option(tiny_files):
    engine = open_engine('cpu', tiny_files, options={'threads': 1, 'kv_slots': 1})
    assert engine.limits.kv_slots == 1
    with pytest.raises(ValueError, match='there is no slot 1 of the KV cache'):
        engine.select_kv(1)
    engine.close()
