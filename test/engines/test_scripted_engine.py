"""The scripted engine: says what its script says, and refuses what a chip refuses."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tiny_model.prompts import prefill_in_cuts

from edge_vlm_ros.core import (
    BadRequestError,
    CancelledError,
    DeviceError,
    EdgeVlmError,
    ModelFileError,
    NotReadyError,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    VisionInputs,
    VisionSpan,
    join_parts,
    text_part,
)
from edge_vlm_ros.engines import ChosenToken, Logits, open_engine
from edge_vlm_ros.engines.scripted.engine import ScriptedEngine
from edge_vlm_ros.engines.scripted.faults import EXIT_STATUS
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.models import find_model
from edge_vlm_ros.text import Tokenizer

ROWS = 4


class Slept(list):
    """Waits of a script, noted down instead of waited."""

    def __call__(self, seconds):
        self.append(seconds)


@pytest.fixture
def slept():
    return Slept()


@pytest.fixture
def make_engine(slept):
    def make(**script):
        return ScriptedEngine(find_model('scripted'), Script.from_mapping(script), slept)

    return make


class Words:
    """Prompts in ChatML for the shipped byte-level tokenizer."""

    def __init__(self):
        self.tokenizer = Tokenizer.load(find_model('scripted').tokenizer_folder)
        self.stop = self.tokenizer.token_id('<|im_end|>')

    def ids(self, *pieces):
        """Template tokens are given as <...>."""
        found = []
        for piece in pieces:
            is_special = piece.startswith('<')
            found += (
                [self.tokenizer.token_id(piece)] if is_special else self.tokenizer.encode(piece)
            )
        return found

    def prompt(self, question, images=0, start=0):
        opening = ['\n'] if start else []
        ids = self.ids(*opening, '<|im_start|>', 'user\n')
        spans = []
        for image in range(images):
            ids += self.ids('<img>')
            spans.append(VisionSpan(image, len(ids), len(ids) + ROWS))
            ids += self.ids(*['<IMG_CONTEXT>'] * ROWS, '</img>', '\n')
        ids += self.ids(question, '<|im_end|>', '\n', '<|im_start|>', 'assistant\n')
        part = text_part(ids, start)
        return PromptPart(part.tokens, part.positions, part.next_position, tuple(spans))


@pytest.fixture(scope='session')
def words():
    return Words()


def image(value, tokens=ROWS):
    return VisionInputs(np.full((1, 3, 56, 56), value, np.float32), (1, 1, 1), tokens)


def chosen(engine):
    found = engine.next_token(SamplingOptions())
    return found.token if isinstance(found, ChosenToken) else int(found.values.argmax())


def answer(engine, words, position):
    """Decode to the stop token, which is not decoded itself."""
    tokens = []
    while (token := chosen(engine)) != words.stop:
        tokens.append(token)
        engine.decode(token, position)
        position += 1
    return words.tokenizer.decode(tokens)


def ask(engine, words, question, images=0, features=None):
    part = words.prompt(question, images)
    engine.kv.truncate(0)
    prefill_in_cuts(engine, part, features or {})
    return answer(engine, words, part.next_position)


def test_the_first_fitting_rule_answers(make_engine, words):
    engine = make_engine(
        answers=[
            {'question': 'colou?r', 'answer': 'Red.'},
            {'question': '^how many', 'answer': 'Two.'},
            {'answer': 'You asked: {question}'},
        ]
    )
    assert ask(engine, words, 'What COLOR is it?') == 'Red.'
    assert ask(engine, words, 'How many?') == 'Two.'
    assert ask(engine, words, 'Was ist das? 你好 🤖') == 'You asked: Was ist das? 你好 🤖'


def test_without_a_fitting_rule_the_answer_is_empty(make_engine, words):
    assert ask(make_engine(answers=[]), words, 'What?') == ''


def test_the_answer_can_tell_which_images_came_through(make_engine, words):
    engine = make_engine(answers=[{'answer': '{images}: {means}'}])
    features = {0: engine.encode(image(0.25)), 1: engine.encode(image(-1.5))}
    assert ask(engine, words, 'What?', 2, features) == '2: 0.25, -1.50'


def test_a_second_turn_answers_the_second_question(make_engine, words):
    engine = make_engine(answers=[{'answer': 'to {question}'}])
    first = words.prompt('one')
    engine.prefill(first, {})
    assert answer(engine, words, first.next_position) == 'to one'
    start = engine.kv.length
    closing = text_part([words.stop], start)
    second = words.prompt('two', start=start + 1)
    turn = join_parts([closing, second])
    engine.prefill(turn, {})
    assert answer(engine, words, turn.next_position) == 'to two'


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    question=st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=20),
    images=st.integers(0, 2),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
def test_prefill_ahead_and_at_once_give_the_same_answer(
    make_engine, words, question, images, cuts
):
    engine = make_engine(answers=[{'answer': '{images} {question}'}])
    features = {i: engine.encode(image(i)) for i in range(images)}
    part = words.prompt(question, images)
    prefill_in_cuts(engine, part, features, [round(cut * len(part)) for cut in cuts])
    ahead = answer(engine, words, part.next_position)
    engine.kv.truncate(len(part) // 2)
    engine.prefill(part.slice(len(part) // 2, len(part)), features)
    again = answer(engine, words, part.next_position)
    assert ahead == again == ask(engine, words, question, images, features)


def test_a_question_fed_through_decode_is_answered_too(make_engine, words):
    engine = make_engine(
        answers=[{'answer': 'to {question}'}],
        limits={'can_extend_prefix': False, 'prefill_chunk': 0},
    )
    part = words.prompt('one')
    engine.prefill(part.slice(0, 8), {})
    with pytest.raises(EdgeVlmError, match='cannot extend'):
        engine.prefill(part.slice(8, len(part)), {})
    for token, position in zip(part.tokens[8:], part.positions[8:], strict=True):
        engine.decode(int(token), int(position))
    assert answer(engine, words, part.next_position) == 'to one'


def test_waits_are_the_scripts(make_engine, slept, words):
    engine = make_engine(
        latency={
            'load_s': 1,
            'encode_tile_s': 2,
            'prefill_call_s': 3,
            'prefill_token_s': 0.5,
            'decode_s': 4,
            'head_s': 5,
        }
    )
    engine.encode(VisionInputs(np.zeros((2, 3, 56, 56), np.float32), (2, 1, 1), 2 * ROWS))
    engine.prefill(text_part(range(6), 0), {})
    chosen(engine)
    engine.decode(1, 6)
    assert slept == [1, 4, 6, 5, 4]


def test_waits_can_come_from_tables_by_cached_tokens(make_engine, slept):
    engine = make_engine(
        latency={
            'prefill_history_s': {128: 1, 256: 2, 384: 3},
            'decode_history_s': {300: 7, 600: 8},
        }
    )
    for start in (0, 128, 256, 384):
        engine.prefill(text_part([1] * 128, start), {})
    engine.kv.truncate(299)
    engine.decode(1, 299)
    engine.decode(1, 300)
    assert slept == [1, 2, 3, 3, 7, 8]


def test_a_model_may_load_in_parts_and_tells_of_each(slept):
    told = []
    script = Script.from_mapping({'latency': {'load_s': 6, 'load_parts': 3}})
    ScriptedEngine(
        find_model('scripted'), script, slept, lambda *parts: told.append((*parts, len(slept)))
    )
    assert slept == [2, 2, 2]
    assert told == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


def test_a_prefill_is_given_up_between_layers_and_leaves_nothing_behind(make_engine, slept):
    engine = make_engine(latency={'prefill_call_s': 8, 'layers': 4})
    engine.prefill(text_part([1] * 3, 0), {})
    assert slept == [2, 2, 2, 2]
    slept.clear()
    with pytest.raises(CancelledError, match='layer 2 of 4'):
        engine.prefill(text_part([1] * 5, 3), {}, lambda: len(slept) == 2)
    assert slept == [2, 2]
    assert engine.kv.length == 3
    engine.prefill(text_part([1] * 5, 3), {})
    assert engine.kv.length == 8


@pytest.mark.parametrize(
    ('limits', 'held', 'pieces'),
    [
        ({'prefill_chunk': 16}, 0, (16, 16, 8)),
        ({'prefill_chunk': 16}, 5, (16, 16, 8)),
        ({'prefill_chunk': 0, 'can_extend_prefix': False}, 0, (40,)),
        ({'prefill_chunk': 0, 'extension_chunk': 1}, 0, (40,)),
        ({'prefill_chunk': 0, 'extension_chunk': 1}, 5, (1,) * 40),
        ({'prefill_chunk': 30, 'extension_chunk': 4}, 0, (30, 4, 4, 2)),
    ],
)
def test_pieces_are_planned_as_the_script_says_and_taken(make_engine, limits, held, pieces):
    engine = make_engine(limits=limits)
    if held:
        engine.prefill(text_part([1] * held, 0), {})
    assert engine.plan_prefill(40) == pieces
    part = text_part([1] * 40, held)
    start = 0
    for tokens in pieces:
        engine.prefill(part.slice(start, start + tokens), {})
        start += tokens
    assert engine.kv.length == held + 40


def test_what_extends_token_by_token_takes_no_chunk_behind_cached_tokens(make_engine):
    engine = make_engine(limits={'prefill_chunk': 0, 'extension_chunk': 1})
    engine.prefill(text_part([1] * 9, 0), {})
    with pytest.raises(PromptTooLongError, match=r'2 tokens in one prefill.*takes 1 '):
        engine.prefill(text_part([1] * 2, 9), {})


def test_limits_are_the_scripts_and_widths_the_configs(make_engine):
    limits = make_engine(
        limits={'context_tokens': 100, 'prefill_chunk': 10, 'max_images': 4}
    ).limits
    assert (limits.context_tokens, limits.longest_prompt, limits.prefill_chunk) == (100, 99, 10)
    assert (limits.max_images, limits.hidden_size, limits.tile_px) == (4, 32, 56)
    assert limits.vocab_size == 262


def test_a_chunk_too_large_and_a_full_context_are_refused(make_engine):
    engine = make_engine(limits={'context_tokens': 20, 'prefill_chunk': 16})
    with pytest.raises(PromptTooLongError, match=r'17 tokens in one prefill.*takes 16'):
        engine.prefill(text_part([1] * 17, 0), {})
    engine.prefill(text_part([1] * 16, 0), {})
    with pytest.raises(PromptTooLongError, match='5 tokens do not fit after 16'):
        engine.prefill(text_part([1] * 5, 16), {})
    for position in range(16, 20):
        engine.decode(1, position)
    with pytest.raises(PromptTooLongError, match='holds 20'):
        engine.decode(1, 20)
    assert engine.kv.length == 20


def test_positions_must_follow_the_cache(make_engine):
    engine = make_engine()
    with pytest.raises(EdgeVlmError, match='position 1, expected 0'):
        engine.prefill(text_part([1, 2], 1), {})
    gap = PromptPart(np.array([1, 2]), np.array([0, 2]), 3)
    with pytest.raises(EdgeVlmError, match='count up'):
        engine.prefill(gap, {})
    engine.prefill(text_part([1, 2], 0), {})
    with pytest.raises(EdgeVlmError, match='position 5, expected 2'):
        engine.decode(1, 5)
    engine.kv.truncate(1)
    with pytest.raises(EdgeVlmError, match='position 2, expected 1'):
        engine.decode(1, 2)
    engine.decode(1, 1)


def test_the_last_token_must_be_there_to_be_followed(make_engine):
    engine = make_engine()
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        chosen(engine)
    engine.prefill(text_part([1, 2], 0), {})
    engine.kv.truncate(1)
    with pytest.raises(EdgeVlmError, match='no token was appended'):
        chosen(engine)


def test_missing_features_and_foreign_ids_are_refused(make_engine, words):
    engine = make_engine()
    with pytest.raises(EdgeVlmError, match='no spliced features for image 0'):
        engine.prefill(words.prompt('What?', 1), {})
    with pytest.raises(EdgeVlmError, match='token id 262 '):
        engine.prefill(text_part([262], 0), {})
    assert engine.kv.length == 0


def test_a_chip_may_choose_tokens_itself(make_engine, words):
    engine = make_engine(
        answers=[{'answer': 'Yes.'}], limits={'samples_on_chip': True, 'has_logits': False}
    )
    assert ask(engine, words, 'Is it?') == 'Yes.'
    engine = make_engine(answers=[{'answer': 'Yes.'}])
    engine.prefill(words.prompt('Is it?'), {})
    found = engine.next_token(SamplingOptions())
    assert isinstance(found, Logits)
    assert found.values.dtype == np.float32
    assert found.values.shape == (262,)


def test_after_close_every_call_says_so(make_engine):
    engine = make_engine()
    engine.close()
    engine.close()
    for call in (
        lambda: engine.encode(image(0)),
        lambda: engine.prefill(text_part([1], 0), {}),
        lambda: chosen(engine),
        lambda: engine.decode(1, 0),
    ):
        with pytest.raises(NotReadyError):
            call()


# --- faults ------------------------------------------------------------------------------------


def test_a_fault_at_load_stops_the_loading(make_engine):
    with pytest.raises(DeviceError, match='no such luck'):
        make_engine(faults=[{'at': 'load', 'message': 'no such luck'}])


def test_a_fault_may_come_late_and_pass(make_engine):
    engine = make_engine(faults=[{'at': 'encode', 'after': 1, 'times': 2}])
    engine.encode(image(0))
    for _ in range(2):
        with pytest.raises(DeviceError, match='scripted error at encode'):
            engine.encode(image(0))
    engine.encode(image(0))


@pytest.mark.parametrize('stage', ['prefill', 'decode', 'next_token'])
def test_a_fault_may_wait_for_a_question(make_engine, words, stage):
    engine = make_engine(answers=[{'answer': 'fine'}], faults=[{'at': stage, 'question': 'crash'}])
    assert ask(engine, words, 'hello') == 'fine'
    with pytest.raises(DeviceError, match=f'at {stage}'):
        ask(engine, words, 'now crash')
    assert ask(engine, words, 'hello') == 'fine'


def test_a_fault_may_wait_for_an_answer_token(make_engine, words):
    engine = make_engine(answers=[{'answer': 'abcd'}], faults=[{'at': 'decode', 'token': 2}])
    with pytest.raises(DeviceError):
        ask(engine, words, 'hello')
    part = words.prompt('hello')
    assert engine.kv.length == len(part) + 2
    assert words.tokenizer.decode(engine.kv.tokens[len(part) :]) == 'ab'


def test_a_failed_call_leaves_the_cache_as_it_was(make_engine):
    engine = make_engine(faults=[{'at': 'prefill', 'times': 1}])
    with pytest.raises(DeviceError):
        engine.prefill(text_part([1], 0), {})
    assert engine.kv.length == 0
    engine.prefill(text_part([1], 0), {})


def test_a_hang_waits_and_then_fails(make_engine, slept):
    engine = make_engine(faults=[{'at': 'prefill', 'kind': 'hang', 'seconds': 99}])
    with pytest.raises(DeviceError, match='hang'):
        engine.prefill(text_part([1], 0), {})
    assert slept == [99]


@pytest.mark.parametrize(
    ('kind', 'status'), [('exit', EXIT_STATUS), ('segfault', -signal.SIGSEGV)]
)
def test_a_fault_may_take_the_process_with_it(tmp_path, kind, status):
    script = tmp_path / 'script.yaml'
    script.write_text(f'faults: [{{at: prefill, kind: {kind}}}]')
    program = f"""
import faulthandler
from edge_vlm_ros.core import text_part
from edge_vlm_ros.engines import open_engine
from edge_vlm_ros.models import find_model

faulthandler.disable()
engine = open_engine('scripted', find_model('scripted', {str(script)!r}))
engine.prefill(text_part([1], 0), {{}})
"""
    ended = subprocess.run([sys.executable, '-c', program], timeout=60, check=False)
    assert ended.returncode == status


# --- scripts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('answer: []', "unknown key 'answer'"),
        ('answers: [{text: hi}]', "unknown key 'text'"),
        ('answers: [{question: "(", answer: x}]', 'no script'),
        ('latency: {decode: 1}', "unknown key 'decode'"),
        ('faults: [{at: lunch}]', "at 'lunch'"),
        ('faults: [{at: encode, question: x}]', 'knows no question'),
        ('faults: [{at: prefill, token: 1}]', 'knows no answer token'),
        ('limits: {can_extend_prefix: false}', 'prefill_chunk must be 0'),
        ('latency: {layers: 0}', 'layers and load_parts are 1 or more'),
        ('limits: {has_logits: false}', 'one of samples_on_chip'),
        ('- just a list', 'no script'),
        ('a: [', 'cannot be read as YAML'),
    ],
)
def test_a_wrong_script_is_refused_with_its_file(tmp_path, text, message):
    script = tmp_path / 'script.yaml'
    script.write_text(text)
    with pytest.raises(ModelFileError, match=f'script.yaml.*{message}') as caught:
        open_engine('scripted', find_model('scripted', str(script)))
    assert '\n' not in caught.value.message.partition('YAML')[0]


def test_the_shipped_script_answers(words):
    engine = open_engine('scripted', find_model('scripted'))
    features = {0: engine.encode(image(0))}
    assert ask(engine, words, 'Describe it.', 1, features) == 'I see 1 images.'
    assert ask(engine, words, 'Why?') == 'You asked: Why?'


def test_the_scripted_chip_has_no_options():
    with pytest.raises(BadRequestError, match='threads'):
        open_engine('scripted', find_model('scripted'), options={'threads': 1})


def test_the_shipped_texts_are_what_the_tool_writes(tmp_path):
    pytest.importorskip('onnx', reason='the tool imports onnx (test extra)')
    from support.tiny_model.config import TinyConfig
    from support.tiny_model.make import write_texts

    write_texts(tmp_path, TinyConfig(context_tokens=4096))
    shipped = find_model('scripted').tokenizer_folder
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (shipped / path.name).read_bytes()


def test_after_a_prefix_a_static_build_takes_steps_or_starts_again_as_is_cheaper(
    make_engine, slept, words
):
    """Qwen2-VL 7B, 1536 tokens: 3.80 s a run, 0.1088 s a step, 2.28 s before the first token."""
    engine = make_engine(
        latency={'prefill_call_s': 3.8, 'decode_s': 0.1088, 'encode_tile_s': 2.28},
        limits={'prefill_chunk': 1536, 'extension_chunk': 1},
    )
    prompt = words.prompt('x' * 60, images=1)
    held = prompt.spans[0].stop
    features = {0: engine.encode(image(0.5))}
    rest = len(prompt) - held
    assert rest > 55
    for asked, kept in ((20, held), (34, held), (35, 0), (55, 0)):
        part = prompt.slice(0, held + asked)
        assert engine.usable_prefix(held, part) == kept
        assert engine.usable_prefix(held, part, {0}) == kept
        assert engine.usable_prefix(held, part, ()) == held, 'the image would be encoded again'
    slept.clear()
    prefill_in_cuts(engine, prompt.slice(0, held), features)
    for place in range(held, held + 12):
        engine.prefill(prompt.slice(place, place + 1), features)
    assert sum(slept) == pytest.approx(3.8 + 12 * 0.1088)
