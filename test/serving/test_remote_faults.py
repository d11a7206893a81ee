"""Whatever a server does wrong, the question ends, once, with a word that says who can act."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading

import pytest
from support.remote import WAIT_S, remote, served, spec_of
from support.scripted_server import (
    CUT,
    SILENCE_S,
    ScriptedServer,
    chunk,
    lines,
    status,
    stream,
    usage,
    words,
)

from edge_vlm_ros.core import BadRequestError, ErrorCode, FinishReason, Question
from edge_vlm_ros.serving import ModelProcess, open_backend

GOOD = words('I see a cone.')
SECRET = 'sk-very-secret-123'
HTML = '<!DOCTYPE html><html><head><title>Hotel Wi-Fi: log in</title></head></html>'
UMLAUT = '{"choices": [{"delta": {"content": "Tür"}}]}'.encode()
HALF = UMLAUT.index('ü'.encode()) + 1
WHOLE = lines(chunk('One '), chunk('two.'), chunk(finish='stop'), done=False)


def ask(vlm, text='What do you see?', **more):
    seen = []
    answer = vlm.ask(Question(text, **more), seen.append).answer(WAIT_S)
    assert sum(chunk.done for chunk in seen) == 1
    assert seen[-1].done
    return answer


def closed_port():
    """Return the address of a port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        return f'http://127.0.0.1:{taken.getsockname()[1]}/v1'


@pytest.mark.parametrize(
    ('reply', 'code', 'part'),
    [
        (status(429, {'error': {'message': 'slow down'}}, headers={'Retry-After': '7'}),
         ErrorCode.BUSY, 'slow down'),
        (status(503, {'error': {'message': 'Loading model'}}), ErrorCode.BUSY, 'Loading model'),
        (status(400, {'object': 'error', 'message': 'bad thing', 'code': 400}),
         ErrorCode.BAD_REQUEST, 'bad thing'),
        (status(422, {'detail': "Unexpected keys: {'stream_options'}"}),
         ErrorCode.BAD_REQUEST, 'stream_options'),
        (status(500, 'Internal Server Error'), ErrorCode.SERVER_UNREACHABLE, 'Internal Server'),
        (status(200, HTML, kind='text/html'), ErrorCode.SERVER_UNREACHABLE, 'Hotel Wi-Fi'),
        (status(302, '', headers={'Location': 'http://evil.example/login'}),
         ErrorCode.SERVER_REFUSED, 'moved to http://evil.example/login'),
        (status(200, {'choices': []}), ErrorCode.SERVER_UNREACHABLE, 'not with a stream'),
        (status(404, {'error': {'message': 'The model does not exist.'}}),
         ErrorCode.SERVER_REFUSED, 'does not exist'),
        (status(404, '404 page not found'), ErrorCode.SERVER_REFUSED, 'not found'),
        (stream(), ErrorCode.SERVER_UNREACHABLE, 'the stream ended'),
        (stream(CUT), ErrorCode.SERVER_UNREACHABLE, ''),
        (stream(b'data: ' + UMLAUT[:HALF]), ErrorCode.SERVER_UNREACHABLE, 'the stream ended'),
        (stream(b'data: ' + UMLAUT[:HALF] + b'\n\n'), ErrorCode.SERVER_UNREACHABLE, 'no JSON'),
        (stream(b'data: {"choices": [{"del'), ErrorCode.SERVER_UNREACHABLE, 'the stream ended'),
        (stream(lines()), ErrorCode.SERVER_UNREACHABLE, 'without saying how'),
        (stream(lines({'error': {'message': 'CUDA out of memory', 'code': 500}})),
         ErrorCode.SERVER_UNREACHABLE, 'CUDA'),
        (stream(b'nonsense\n' * 50), ErrorCode.SERVER_UNREACHABLE, 'the stream ended'),
    ],
)  # fmt: skip
def test_each_wrong_thing_has_its_code_and_its_reason(reply, code, part):
    with served(reply) as (vlm, server):
        answer = ask(vlm)
        assert vlm.ask(Question('Again?')).answer(WAIT_S).error_code is code
    assert (answer.finish_reason, answer.error_code) == (FinishReason.ERROR, code), answer.message
    assert part in answer.message
    assert server.url in answer.message, 'it says which server'
    assert answer.text == ''


@pytest.mark.parametrize(
    ('parts', 'text', 'part'),
    [
        ((lines(chunk('One '), done=False),), 'One ', 'in the midst'),
        ((lines(chunk('One '), done=False), b'data: ' + UMLAUT[:HALF]), 'One ', 'in the midst'),
        ((lines(chunk('One '), done=False), CUT), 'One ', 'broke'),
        ((lines(chunk('One ')),), 'One ', 'without saying how'),
        ((lines(chunk('One '), {'error': {'message': 'gone'}}),), 'One ', 'gone'),
        ((lines(chunk('One '), done=False), SILENCE_S), 'One ', 'fell silent'),
    ],
)
def test_what_breaks_off_after_a_word_is_an_error_with_the_partial_text(parts, text, part):
    with (
        ScriptedServer([stream(*parts)]) as first,
        ScriptedServer([GOOD]) as second,
        remote(first, second, between_s=0.5) as vlm,
    ):
        answer = ask(vlm)
        assert not second.asked, 'nobody gets two halves of two answers'
        assert ask(vlm).text == 'I see a cone.', 'the next question goes to the other'
    assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
    assert answer.text == text
    assert part in answer.message


@pytest.mark.parametrize(
    'parts',
    [
        (WHOLE,),  # No [DONE], as transformers.
        (WHOLE, b'data: [DONE]\n'),  # No blank line after it.
        (WHOLE, SILENCE_S),  # A gateway that keeps the connection open.
        (WHOLE, CUT),  # What follows the end is no part of the answer.
        (WHOLE, b'data: nonsense\n\n'),
        (b': ping\n\n', WHOLE, b'data: [DONE]\n\n'),
        (lines({'choices': [{'delta': {'content': None}}]}, done=False), WHOLE),
        (lines(chunk('One '), chunk('two.', finish='stop'), usage(9, 2)),),
        (lines(chunk('One '), {**chunk('two.', finish='stop'), **usage(9, 2), 'choices': chunk(
            'two.', finish='stop')['choices']}),),
        (lines({**usage(9, 0), 'choices': []}, done=False), WHOLE),
        tuple(WHOLE[n : n + 7] for n in range(0, len(WHOLE), 7)),
    ],
)  # fmt: skip
def test_an_answer_is_whole_once_it_said_how_it_ended(parts):
    with served(stream(*parts)) as (vlm, _):
        answer = ask(vlm)
    assert answer.success, answer.message
    assert (answer.text, answer.finish_reason) == ('One two.', FinishReason.STOP)


def test_silence_is_given_up_and_pings_are_no_words():
    pings = [part for _ in range(100) for part in (b': ping\n\n', 0.1)]
    with (
        ScriptedServer([stream(SILENCE_S)]) as silent,
        ScriptedServer([stream(*pings)]) as pinging,
        remote(silent, pinging, first_token_s=0.6, between_s=60) as vlm,
    ):
        answer = ask(vlm)
        for server in (silent, pinging):
            server.until(lambda server=server: server.asked[0].is_closed)
    assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
    assert answer.message.count('said no word within 0.6 s') == 2


def test_pings_between_words_are_life():
    pings = [part for _ in range(8) for part in (b': ping\n\n', 0.2)]
    reply = stream(lines(chunk('One '), done=False), *pings, lines(chunk('two.', finish='stop')))
    with served(reply, between_s=1.0) as (vlm, _):
        assert ask(vlm).text == 'One two.'


def test_a_port_that_takes_connections_and_says_nothing_is_given_up():
    with socket.create_server(('127.0.0.1', 0)) as mute:
        url = f'http://127.0.0.1:{mute.getsockname()[1]}/v1'
        with open_backend(spec_of(url, model='m', first_token_s=0.5)) as vlm:
            answer = ask(vlm)
    assert 'said no word within 0.5 s' in answer.message


def test_no_server_at_all_is_said_and_the_backend_lives():
    url = closed_port()
    with open_backend(spec_of(url, model='m')) as vlm:
        first, second = ask(vlm), ask(vlm)
        assert vlm.health.is_down
        assert url in vlm.health.reason
    assert first.error_code is second.error_code is ErrorCode.SERVER_UNREACHABLE
    assert url in first.message
    assert (first.model, first.chip) == ('m', 'remote')


@pytest.mark.parametrize(
    'said', [b'SSH-2.0-OpenSSH_9.2\r\n', b'\x00\xff' * 200, b'HTTP/1.1 xyz\r\n\r\n']
)
def test_a_server_that_is_none_of_the_web_is_said(said):
    def serve(port):
        while True:
            try:
                connection, _ = port.accept()
            except OSError:
                return
            with connection:
                connection.sendall(said)
                connection.recv(1 << 16)

    with socket.create_server(('127.0.0.1', 0)) as port:
        threading.Thread(target=serve, args=(port,), daemon=True).start()
        url = f'http://127.0.0.1:{port.getsockname()[1]}/v1'
        with open_backend(spec_of(url, model='m')) as vlm:
            answer = ask(vlm)
        port.shutdown(socket.SHUT_RDWR)
    assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
    assert url in answer.message


# --- the key, and where it goes ------------------------------------------------------------------


def test_the_key_is_sent_and_is_in_no_log_and_no_message(monkeypatch, caplog):
    caplog.set_level('DEBUG')
    monkeypatch.setenv('ROBOT_KEY', SECRET)
    repeated = status(400, {'error': {'message': f'what is {SECRET}?'}})
    streamed = stream(lines({'error': {'message': f'what is {SECRET}?'}}))
    with (
        ScriptedServer([GOOD, repeated, streamed], key=SECRET) as server,
        remote(server, api_key_env='ROBOT_KEY') as vlm,
    ):
        assert ask(vlm).success
        answer, later = ask(vlm), ask(vlm)
        told = f'{vlm.info} {vlm.health} {vlm!r} {vars(vlm)}'
    assert 'what is ***?' in answer.message
    assert 'what is ***?' in later.message
    assert SECRET not in told
    assert SECRET not in caplog.text


def test_a_wrong_key_is_the_deployer_s_and_the_backend_lives(monkeypatch):
    monkeypatch.setenv('ROBOT_KEY', 'wrong')
    with (
        ScriptedServer([GOOD], key=SECRET) as server,
        remote(server, model='m', api_key_env='ROBOT_KEY') as vlm,
    ):
        answer = ask(vlm)
        assert answer.error_code is ErrorCode.SERVER_REFUSED
        assert 'Invalid API Key' in answer.message
        server.key = 'wrong'
        assert ask(vlm).success


def test_a_set_up_that_cannot_be_is_refused_at_once():
    with pytest.raises(BadRequestError, match='servers='):
        open_backend(spec_of())
    with pytest.raises(BadRequestError, match='no option api_key;'):
        open_backend(spec_of('http://a', api_key=SECRET))
    with pytest.raises(BadRequestError, match='ca_file /nowhere'):
        open_backend(spec_of('https://a', ca_file='/nowhere'))
    process = ModelProcess(spec_of('http://far.example', api_key_env='PATH'))
    process.start()
    answer = process.ask(Question('Well?')).answer(WAIT_S)
    process.close()
    assert answer.error_code is ErrorCode.UNSUPPORTED_OPTION
    assert 'unencrypted' in answer.message
    assert os.environ['PATH'] not in answer.message


def test_redirects_are_not_followed_and_proxies_not_asked_unless_told(monkeypatch):
    with ScriptedServer([GOOD]) as proxy, ScriptedServer([GOOD]) as server:
        monkeypatch.setenv('http_proxy', proxy.url)
        monkeypatch.delenv('no_proxy', raising=False)
        with remote(server) as vlm:
            assert ask(vlm).success
        assert (len(server.asked), proxy.looks) == (1, 0)
        server.then(status(307, '', headers={'Location': f'{proxy.url}/chat/completions'}))
        with remote(server) as vlm:
            assert ask(vlm).error_code is ErrorCode.SERVER_REFUSED
        assert not proxy.asked
        server.then(GOOD)
        with remote(server, proxy_from_env=True) as vlm:
            assert ask(vlm).success, 'what is sent on this machine stays on it'
        assert (proxy.looks, len(proxy.asked)) == (0, 0)


def test_a_proxy_is_asked_where_that_is_told(monkeypatch):
    heard = []

    def listen(port):
        connection, _ = port.accept()
        with connection:
            heard.append(connection.recv(1 << 16))
            connection.sendall(b'HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n')

    with socket.create_server(('127.0.0.1', 0)) as port:
        monkeypatch.setenv('http_proxy', f'http://127.0.0.1:{port.getsockname()[1]}')
        monkeypatch.delenv('no_proxy', raising=False)
        thread = threading.Thread(target=listen, args=(port,), daemon=True)
        thread.start()
        with open_backend(spec_of('http://far.example', model='m', proxy_from_env=True)) as vlm:
            assert '502' in vlm.health.reason
        thread.join(WAIT_S)
    assert heard[0].startswith(b'GET http://far.example/v1/models ')


@pytest.fixture(scope='module')
def certificate(tmp_path_factory):
    """A certificate of one's own for 127.0.0.1: key and certificate in one file."""
    folder = tmp_path_factory.mktemp('tls')
    key, cert = folder / 'key.pem', folder / 'cert.pem'
    command = ['openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2']
    command += ['-keyout', str(key), '-out', str(cert), '-subj', '/CN=robot']
    command += ['-addext', 'subjectAltName=IP:127.0.0.1']
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context, cert


def test_a_certificate_is_verified_and_one_s_own_authority_is_taken(certificate):
    context, cert = certificate
    with ScriptedServer([GOOD], tls=context) as server:
        with remote(server, model='m') as vlm:
            answer = ask(vlm)
        assert answer.error_code is ErrorCode.SERVER_UNREACHABLE
        assert 'certificate' in answer.message
        assert not server.asked
        with remote(server, ca_file=str(cert)) as vlm:
            assert ask(vlm).success
