"""`edge-vlm ask --chip remote`, and what the doctor says of servers: real sockets."""

from __future__ import annotations

import json

import pytest
from support.scripted_server import (
    SILENCE_S,
    ScriptedServer,
    chunk,
    lines,
    parts_of,
    status,
    stream,
    usage,
    words,
)

from edge_vlm_ros.cli.findings import State
from edge_vlm_ros.cli.server_probes import find_servers

NOWHERE = 'http://127.0.0.1:9/v1'
KEY = 'a-secret-of-eleven'


@pytest.fixture
def server():
    with ScriptedServer([words('A red door.')]) as served:
        yield served


def test_a_server_answers_and_is_named_in_json(edge_vlm, server, grey_image):
    done = edge_vlm(
        *('ask', '--chip', 'remote', '--server', server.url, '--image', grey_image(90)),
        *('--json', 'What is this?'),
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer['text'], answer['chip'], answer['model']) == (
        'A red door.',
        'remote',
        'scripted-vlm',
    )
    assert f'they are sent to {server.url}' in done.stderr
    assert len(server.asked[0].urls) == 1


def test_the_key_comes_from_the_environment_and_is_never_shown(edge_vlm, server, monkeypatch):
    server.key = KEY
    monkeypatch.setenv('SERVER_KEY', KEY)
    words_ = ('ask', '--chip', 'remote', '--server', server.url, '--key-env')
    done = edge_vlm(*words_, 'SERVER_KEY', '--stats', '--verbose', 'Well?')
    assert (done.returncode, done.stdout) == (0, 'A red door.\n')
    assert KEY not in done.stderr
    done = edge_vlm(*words_, KEY, 'Well?')
    assert done.returncode == 2
    assert KEY not in done.stderr
    assert 'name of an environment variable' in done.stderr


def test_where_no_server_is_the_chip_of_this_machine_answers(edge_vlm, script):
    chosen = ('ask', '--chip', 'remote', '--server', NOWHERE, '--json', 'Yes or no?')
    alone = edge_vlm(*chosen)
    assert alone.returncode == 3
    assert json.loads(alone.stdout)['error_code_name'] == 'SERVER_UNREACHABLE'
    done = edge_vlm(*chosen, '--fallback-chip', 'scripted', '--fallback-model', script)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer['text'], answer['chip']) == ('Yes.', 'scripted')


def test_servers_are_asked_only_where_the_chip_says_so(edge_vlm):
    done = edge_vlm('ask', '--server', NOWHERE, 'Well?')
    assert done.returncode == 2
    assert '--server is for --chip remote: nothing is sent anywhere else' in done.stderr
    done = edge_vlm('ask', '--chip', 'remote', 'Well?')
    assert done.returncode == 2
    assert 'needs the address of a server' in done.stderr


# --- the doctor ----------------------------------------------------------------------------------


def sighted(red='Red.', blue='Blue.', picture_tokens=60):
    """Return a reply of a server that sees, or says that it does."""

    async def reply(request, body):
        kinds = [part['type'] for message in body['messages'] for part in parts_of(message)]
        images = kinds.count('image_url')
        number = sum('image_url' in str(each.body) for each in reply.server.asked)
        text = 'Nothing.' if not images else (red if number == 1 else blue)
        prompt = 20 + picture_tokens * images
        events = (chunk(text), chunk(finish='stop'), usage(prompt, 3))
        return await stream(lines(*events))(request, body)

    return reply


def look(reply=None, model='', models=None, key='', **options):
    """Return what is found of a server that replies so."""
    reply = reply or sighted()
    with ScriptedServer([reply], key=key) as server:
        reply.server = server
        if models is not None:
            server.models = models
        found = list(find_servers(model, {'servers': server.url, **options}))
        assert {finding.topic for finding in found} == {f'Server {server.url}'}
    return {finding.name: finding for finding in found}


def test_a_server_that_is_well_is_found_so_link_by_link():
    models = {'data': [{'id': 'large', 'max_model_len': 8192}]}
    found = look(models=models)
    assert {finding.state for finding in found.values()} == {State.OK}
    assert list(found) == ['reachable', 'key', 'model', 'context', 'images', 'two pictures']
    assert found['model'].found == 'large, the first of: large'
    assert found['context'].found == '8192 tokens'
    assert found['two pictures'].found == (
        "said of a red picture 'Red.', of a blue one 'Blue.', under one prompt"
    )


def test_a_server_that_mixes_pictures_up_is_found_out():
    found = look(sighted(blue='Red.'))
    assert found['two pictures'].state is State.WARNING
    assert 'mix pictures up' in found['two pictures'].remedy


def test_a_server_that_drops_pictures_is_found_out_by_its_count():
    found = look(sighted(picture_tokens=0))
    assert found['images'].state is State.WARNING
    assert 'drops pictures' in found['images'].found


def test_a_server_that_refuses_pictures_is_told_with_its_words():
    error = {'error': {'message': 'image input is not supported', 'code': 500}}
    found = look(status(500, error))
    assert found['images'].state is State.WARNING
    assert 'image input is not supported' in found['images'].found


def test_a_model_that_is_not_there_is_told_with_those_that_are():
    found = look(model='huge')
    assert found['model'].state is State.WARNING
    assert found['model'].found == "does not list 'huge'; lists scripted-vlm"
    assert 'images' not in found
    assert look(models={'data': []})['model'].found == 'lists no model'


def test_a_context_that_is_not_said_is_no_fault():
    assert look()['context'].state is State.ABSENT
    assert look(context_tokens=4096)['context'].found == '4096 tokens'


def test_a_key_that_is_wanted_or_wrong_is_told_without_it(monkeypatch):
    found = look(key=KEY)
    assert (found['key'].state, found['reachable'].state) == (State.WARNING, State.OK)
    assert '--key-env' in found['key'].remedy
    monkeypatch.setenv('SERVER_KEY', 'another-secret')
    found = look(key=KEY, api_key_env='SERVER_KEY')
    assert found['key'].remedy == 'the key in SERVER_KEY is not one of its own'
    assert 'secret' not in str(found)
    monkeypatch.setenv('SERVER_KEY', KEY)
    assert look(key=KEY, api_key_env='SERVER_KEY')['key'].found == 'accepted'


@pytest.mark.parametrize(
    ('models', 'part'),
    [
        (status(200, '<html><title>Log in</title></html>', kind='text/html'), 'Log in'),
        (status(503, {'error': {'message': 'loading model'}}), 'loading model'),
        (stream(SILENCE_S), 'said nothing'),
    ],
)
def test_what_is_no_server_is_told_with_what_it_says(models, part, monkeypatch):
    monkeypatch.setattr('edge_vlm_ros.cli.server_probes.LOOK_S', 1.0)
    found = look(models=models)
    assert found['reachable'].state is State.WARNING
    assert part in found['reachable'].found


def test_a_wrong_path_is_told(monkeypatch):
    with ScriptedServer([words('Red.')]) as server:
        (reached, models) = find_servers('', {'servers': server.url.replace('/v1', '/v2')})
    assert (reached.state, models.state) == (State.OK, State.WARNING)
    assert 'base address' in models.remedy


def test_options_that_cannot_be_are_one_finding():
    (finding,) = find_servers('', {'servers': 'ftp://x'})
    assert (finding.state, finding.topic) == (State.WARNING, 'Servers')


@pytest.mark.slow
def test_the_doctor_says_it_all_and_its_exit_code_counts_the_servers(edge_vlm):
    reply = sighted()
    with ScriptedServer([reply]) as server:
        reply.server = server
        well = edge_vlm('doctor', '--json', '--server', server.url)
        report = json.loads(well.stdout)
        topics = [finding['topic'] for finding in report['findings']]
        assert topics[0] == f'Server {server.url}'
        assert (well.returncode, report['works']) == (0, True), well.stdout
    gone = edge_vlm('doctor', '--server', NOWHERE)
    assert gone.returncode == 3
    assert f'Server {NOWHERE}' in gone.stdout
