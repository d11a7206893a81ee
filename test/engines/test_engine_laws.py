"""Every engine refuses what none may do, in the same words; Axera and Sophgo in their folders."""

from support.engine_laws import broken_laws

from edge_vlm_ros.core import text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model

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


def test_the_scripted_engine_keeps_the_laws():
    script = Script.from_mapping({'limits': {'context_tokens': 48, 'prefill_chunk': 16}})
    engine = ScriptedEngine(find_model('scripted'), script)
    assert broken_laws(engine, rows=4, except_for=OF_A_SCRIPT) == []


def test_an_engine_that_cannot_extend_uses_no_prefix():
    limits = {'can_extend_prefix': False, 'prefill_chunk': 0}
    engine = ScriptedEngine(find_model('scripted'), Script.from_mapping({'limits': limits}))
    assert engine.usable_prefix(5, text_part(range(9), 0)) == 0


def test_a_broken_law_is_named():
    class Careless(ScriptedEngine):
        def next_token(self, sampling):
            return self._head(sampling)

    script = Script.from_mapping({'limits': {'context_tokens': 48, 'prefill_chunk': 16}})
    engine = Careless(find_model('scripted'), script)
    broken = broken_laws(engine, rows=4, except_for=OF_A_SCRIPT)
    assert broken == [
        f'{law}: not refused'
        for law in (
            'head before any token',
            'head after giving up',
            'head after a failure',
            'head after a failed step',
            'head after a cut',
            'closed: next_token',
        )
    ]
