"""The chip `remote` with a chip of this machine beside it: real sockets, a real pipeline."""

from __future__ import annotations

import time

import pytest
import yaml
from serving.conftest import make_frame
from support.patience import Patience
from support.scripted_server import CUT, SILENCE_S, ScriptedServer, chunk, lines, stream, words

from edge_vlm_ros.core import BadRequestError, ErrorCode, ModelFileError, Question
from edge_vlm_ros.serving import ModelProcess, ModelSpec, check_spec, open_backend
from edge_vlm_ros.serving.remote.opening import JoinedSteps, split_spec
from edge_vlm_ros.serving.step import REST, Step

ECHO = {'answers': [{'question': 'images', 'answer': '{images} here'}, {'answer': 'local'}]}
SILENCE = stream(SILENCE_S)
NOWHERE = 'http://127.0.0.1:9/v1'


@pytest.fixture
def spec(tmp_path):
    """Make the spec of servers with a scripted chip beside them."""
    path = tmp_path / 'script.yaml'
    path.write_text(yaml.safe_dump(ECHO))

    def make(*servers, **options):
        chosen = {
            'servers': ','.join(each if isinstance(each, str) else each.url for each in servers),
            'fallback_chip': 'scripted',
            'fallback_model': str(path),
            'first_token_s': 0.3,
            **options,
        }
        return ModelSpec('remote', 'scripted-vlm', options=chosen)

    return make


def ask(vlm, text='Well?', **more):
    answer = vlm.ask(Question(text, **more)).answer(60)
    assert answer.success, answer.message
    return answer


def until(condition):
    patience = Patience(30)
    while not condition():
        assert not patience.is_over()
        patience.look()


def test_a_server_answers_while_it_is_there_the_chip_while_not_and_the_server_again(spec):
    with ScriptedServer([words('from afar')]) as server:
        vlm = open_backend(spec(server))
        try:
            told = []
            vlm.listen_standing(told.append)
            assert ask(vlm).chip == 'remote'
            server.stop()
            first = ask(vlm)
            assert (first.chip, first.text) == ('scripted', 'local')
            assert 'no server answered' in first.message
            until(lambda: vlm.standing.outage)
            looks = len(server.asked)
            second = ask(vlm)
            assert (second.chip, second.message) == ('scripted', '')
            assert len(server.asked) == looks, 'nobody is asked who is known to be gone'
            server.start()
            until(lambda: not vlm.standing.outage)
            assert ask(vlm).chip == 'remote'
            assert [bool(each.outage) for each in told][:3] == [False, True, False]
        finally:
            vlm.close()


def test_silence_goes_to_the_chip_and_closes_the_connection_of_the_server(spec):
    with ScriptedServer([SILENCE]) as server:
        vlm = open_backend(spec(server))
        try:
            answer = ask(vlm)
            assert (answer.text, answer.chip) == ('local', 'scripted')
            server.until(lambda: server.asked[0].is_closed)
        finally:
            vlm.close()


def test_a_first_word_that_comes_after_half_of_the_time_left_is_not_waited_for(spec):
    with ScriptedServer([SILENCE]) as server:
        vlm = open_backend(spec(server, first_token_s=3600.0))
        try:
            answer = ask(vlm, deadline_ns=time.monotonic_ns() + 1_500_000_000)
            assert answer.chip == 'scripted'
        finally:
            vlm.close()


def test_what_breaks_off_after_a_word_is_an_error_with_that_word(spec):
    broken = stream(lines(chunk('I see '), done=False), CUT)
    with ScriptedServer([broken]) as server:
        vlm = open_backend(spec(server))
        try:
            answer = vlm.ask(Question('Well?')).answer(60)
            assert (answer.text, answer.error_code) == (
                'I see ',
                ErrorCode.SERVER_UNREACHABLE,
            )
        finally:
            vlm.close()


def test_a_conversation_goes_over_with_its_frames_and_comes_back(spec):
    with ScriptedServer([words('from afar')]) as server:
        vlm = open_backend(spec(server))
        try:
            ask(vlm, 'one', session_id='s', frames=(make_frame(10),))
            ask(vlm, 'two', session_id='s', frames=(make_frame(20, stamp_ns=2),))
            server.stop()
            there = ask(vlm, 'How many images?', session_id='s', continues_session=True)
            assert (there.text, there.chip) == ('2 here', 'scripted')
            assert [ref.stamp_ns for ref in there.frames] == [1, 2]
            server.start()
            until(lambda: not vlm.standing.outage)
            back = ask(vlm, 'four', session_id='s', continues_session=True)
            assert back.chip == 'remote'
            messages = server.asked[-1].body['messages']
            assert [message['role'] for message in messages] == ['user', 'assistant'] * 3 + [
                'user'
            ]
            assert messages[5]['content'] == '2 here'
            assert len(server.asked[-1].urls) == 2
            assert [ref.stamp_ns for ref in back.frames] == [1, 2]
            assert ask(vlm, 'five', session_id='s').success
            assert len(server.asked[-1].body['messages']) == 9
        finally:
            vlm.close()


def test_a_wrong_key_leaves_the_robot_with_its_own_chip_and_says_why(spec, monkeypatch):
    monkeypatch.setenv('THE_KEY', 'wrong-and-secret')
    with ScriptedServer([words('from afar')], key='right') as server:
        vlm = open_backend(spec(server, api_key_env='THE_KEY'))
        try:
            assert ask(vlm).chip == 'scripted'
            assert '401' in vlm.standing.outage
            assert 'secret' not in vlm.standing.outage
        finally:
            vlm.close()


def test_the_server_has_the_word_where_the_chip_chooses_nothing(spec):
    with ScriptedServer([words('open')]) as server:
        options = {'order': 'local_then_remote', 'sure_from': 0.9}
        vlm = open_backend(spec(server, **options))
        try:
            free = ask(vlm)
            assert (free.chip, server.asked) == ('scripted', [])
            closed = ask(vlm, 'Is it?', choices=('open', 'shut'))
            assert (closed.choice, closed.chip) == ('open', 'remote')
        finally:
            vlm.close()


def test_a_model_process_tells_its_parent_who_answers(spec):
    states = []
    with ScriptedServer([words('from afar')]) as server:
        process = ModelProcess(spec(server), on_state=states.append)
        process.start()
        try:
            assert ask(process).chip == 'remote'
            server.stop()
            assert ask(process).chip == 'scripted'
            until(lambda: process.state.standing.outage)
            state = process.state
            assert (state.is_ready, state.standing.is_spare) == (True, True)
            assert (state.info.chip, process.info.chip) == ('scripted', 'scripted')
            assert abs(time.time_ns() - state.standing.since_ns) < 60 * 10**9
            server.start()
            until(lambda: not process.state.standing.outage)
            assert process.info.chip == 'remote'
        finally:
            process.close()


def test_servers_alone_say_that_nobody_answers(spec):
    vlm = open_backend(ModelSpec('remote', 'm', options={'servers': NOWHERE}))
    try:
        assert vlm.standing.outage.startswith(NOWHERE)
        assert not vlm.standing.is_spare
        assert vlm.ask(Question('Well?')).answer(60).error_code is ErrorCode.SERVER_UNREACHABLE
    finally:
        vlm.close()


def test_a_set_up_is_checked_before_anything_is_opened(spec, monkeypatch):
    assert check_spec(spec(NOWHERE)).startswith(f'scripted-vlm of {NOWHERE}, and ')
    assert check_spec(ModelSpec('remote', options={'servers': 'http://a'})) == (
        'the first model listed of http://a/v1'
    )
    with pytest.raises(ModelFileError):
        check_spec(spec(NOWHERE, fallback_model='./nowhere.yaml'))
    wrong = [
        ({'servers': ''}, 'needs the address of a server'),
        ({'servers': 'ftp://a'}, 'no address of a server'),
        ({'api_key_env': 'sk-my-secret'}, 'these 12 characters are none'),
        ({'api_key_env': 'NOT_SET_ANYWHERE'}, 'not set'),
        ({'order': 'both'}, 'order is remote_then_local or local_then_remote'),
        ({'sure_from': 2}, 'from 0 to 1'),
        ({'fallback_chip': 'remote'}, 'of this machine'),
        ({'fallback_chip': 'tpu'}, "no chip 'tpu'"),
        ({'fallback_chip': ''}, 'mean nothing without a fallback_chip'),
    ]
    for options, part in wrong:
        with pytest.raises(BadRequestError) as raised:
            check_spec(spec(NOWHERE, **options))
        assert part in raised.value.message
        assert 'secret' not in raised.value.message


def test_options_go_to_whom_they_are_for(spec):
    parts = split_spec(spec(NOWHERE, parallel=2, threads=3))
    assert parts.remote.options['parallel'] == 2
    assert parts.local.options == {'threads': 3}
    assert (parts.local.chip, parts.remote.chip) == ('scripted', 'remote')
    assert parts.fallback.first_word_s == pytest.approx(0.55)
    alone = ModelSpec('remote', options={'servers': NOWHERE, 'threads': 3})
    with pytest.raises(BadRequestError, match='threads'):
        split_spec(alone)


def test_two_backends_rest_when_both_do():
    steps = []
    joined = JoinedSteps(steps.append)
    joined.remote(Step('answer', 'a'))
    joined.local(Step('decode', 'b'))
    joined.remote(REST)
    joined.local(REST)
    assert steps == [Step('answer', 'a'), Step('decode', 'b'), Step('decode', 'b'), REST]
