"""The interface files: complete, commented, and in step with each other and with the code."""

import re
from pathlib import Path

import pytest

from edge_vlm_ros.core import ErrorCode, FinishReason, Readiness

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted(f for d in ('msg', 'srv', 'action') for f in (ROOT / d).iterdir())
CONSTANT = re.compile(r'^(\w+) ([A-Z_0-9]+)=(\d+)')


def code_lines(path):
    """Return the lines of an interface file that say something to ROS."""
    lines = path.read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith('#')]


def constants(name, prefix):
    """Return the constants of a message that start with `prefix`, without it."""
    found = (CONSTANT.match(line) for line in code_lines(ROOT / 'msg' / f'{name}.msg'))
    return {m[2].removeprefix(prefix): int(m[3]) for m in found if m and m[2].startswith(prefix)}


def sections(path):
    """Return the fields of each section of a service or action, comments left out."""
    fields = [line.split('#')[0].strip() for line in code_lines(path)]
    return [part.strip().splitlines() for part in '\n'.join(fields).split('---')]


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_every_field_and_constant_is_explained(path):
    lines = [line for line in code_lines(path) if line.strip() != '---']
    assert [line for line in lines if not re.search(r' # ?\S|  ?# \S', line)] == []


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_every_file_begins_by_saying_what_it_is_for(path):
    assert path.read_text().startswith('# ')


def test_every_interface_file_is_built():
    built = re.findall(r'"((?:msg|srv|action)/\w+\.\w+)"', (ROOT / 'CMakeLists.txt').read_text())
    assert sorted(built) == sorted(str(f.relative_to(ROOT)) for f in FILES)


def test_the_action_takes_what_the_service_takes_and_gives_what_it_gives():
    request, response = sections(ROOT / 'srv' / 'Ask.srv')
    goal, result, feedback = sections(ROOT / 'action' / 'Ask.action')
    assert goal == request
    assert result == response
    assert feedback == ['AnswerChunk chunk']


def test_both_services_answer_alike():
    ask, describe = (sections(ROOT / 'srv' / f'{name}.srv')[1] for name in ('Ask', 'Describe'))
    assert ask == describe


@pytest.mark.parametrize('name', ['Answer', 'AnswerChunk'])
def test_the_messages_and_the_code_have_the_same_error_codes(name):
    assert constants(name, 'ERROR_') == {code.name: code.value for code in ErrorCode}


@pytest.mark.parametrize('name', ['Answer', 'AnswerChunk'])
def test_the_messages_and_the_code_have_the_same_finish_reasons(name):
    assert constants(name, 'FINISH_') == {reason.name: reason.value for reason in FinishReason}


def test_the_message_and_the_code_have_the_same_degrees_of_readiness():
    assert constants('Answer', 'AHEAD_') == {each.name: each.value for each in Readiness}


@pytest.mark.ros
def test_the_built_messages_are_those_of_the_files():
    from edge_vlm_ros import msg

    for path in (ROOT / 'msg').iterdir():
        fields = [line.split()[1] for line in code_lines(path) if not CONSTANT.match(line)]
        assert list(getattr(msg, path.stem).get_fields_and_field_types()) == fields
