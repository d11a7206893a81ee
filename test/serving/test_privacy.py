"""What people ask and what cameras see is nobody's business: not in the log, above DEBUG."""

import ast
import logging
from pathlib import Path

import pytest

from edge_vlm_ros.core import EdgeVlmError, FrameSource, Question, RawImage, StoredFrame
from edge_vlm_ros.serving import VlmPipeline

ROOT = Path(__file__).resolve().parents[2]
SECRET = 'xylophone'
SCRIPT = f"""
answers: [{{question: 'loop', answer: '{SECRET * 40}'}}, {{answer: 'It is the {SECRET}.'}}]
faults: [{{at: decode, kind: error, question: 'broken', token: 1, message: 'too hot'}}]
"""


@pytest.mark.parametrize(('text', 'is_good'), [('the', True), ('broken', False), ('loop', False)])
def test_no_word_of_a_question_or_an_answer_is_logged_above_debug(tmp_path, caplog, text, is_good):
    (tmp_path / 'script.yaml').write_text(SCRIPT)
    image = RawImage('rgb8', 64, 48, 192, bytes(48 * 192))
    frame = StoredFrame(FrameSource(f'camera_{SECRET}'), 1, image)
    caplog.set_level(logging.INFO)
    with VlmPipeline.open(chip='scripted', model=str(tmp_path / 'script.yaml')) as vlm:
        for session in ('', f'session_{SECRET}'):
            question = Question(
                f'Where is {text} {SECRET}?',
                frames=(frame,),
                session_id=session,
                system_prompt=f'Like {SECRET}.',
                choices=(SECRET, 'no') if is_good else (),
                stop=() if is_good else (f'{SECRET}!',),
            )
            answer = vlm.ask(question).answer()
            assert answer.success == is_good
        with pytest.raises(EdgeVlmError):
            vlm.ask(Question(SECRET, system_prompt=SECRET * 20_000))
    assert caplog.records
    assert SECRET not in caplog.text


def test_no_downloaded_code_is_trusted_wherever_a_tokenizer_is_loaded():
    found = 0
    for folder in ('edge_vlm_ros', 'tools', 'test', 'launch'):
        for path in (ROOT / folder).rglob('*.py'):
            for call in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
                if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute):
                    continue
                if call.func.attr == 'from_pretrained':
                    trusted = {word.arg: word.value for word in call.keywords}
                    value = trusted.get('trust_remote_code')
                    assert isinstance(value, ast.Constant), path
                    assert value.value is False, path
                    found += 1
    assert found >= 2
