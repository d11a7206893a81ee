"""Where servers are, the key for them, and what may not be written in a parameter."""

from __future__ import annotations

import pytest

from edge_vlm_ros.core import BadRequestError, ErrorCode, read_options
from edge_vlm_ros.remote.addresses import read_servers
from edge_vlm_ros.remote.key import read_key
from edge_vlm_ros.remote.options import RemoteOptions

LOCAL = 'http://127.0.0.1:8000/v1'
SECRET = 'sk-very-secret-123'


def options(**values):
    return read_options(RemoteOptions, values, 'chip remote')


def refused(work, *parts):
    with pytest.raises(BadRequestError) as caught:
        work()
    assert caught.value.code is ErrorCode.UNSUPPORTED_OPTION
    for part in parts:
        assert part in caught.value.message
    assert SECRET not in caught.value.message
    return caught.value.message


def test_addresses_are_read_in_their_order_and_get_a_path():
    read = read_servers('https://a:8443/v1/, http://b ,http://[::1]:1/openai/v1')
    assert [server.url for server in read] == [
        'https://a:8443/v1', 'http://b/v1', 'http://[::1]:1/openai/v1',
    ]  # fmt: skip
    assert [server.may_have_key for server in read] == [True, False, True]


@pytest.mark.parametrize(
    ('text', 'part'),
    [
        ('', 'servers='),
        ('http://a,http://a/v1', 'twice'),
        ('a:8000', 'no address'),
        ('ftp://a', 'no address'),
        ('http://', 'no address'),
        ('http://a:99999', 'Port'),
        ('http://a/v1?key=x', 'no base address'),
        (f'http://user:{SECRET}@a/v1', 'api_key_env'),
        (f'http://user:{SECRET}@a:bad/v1', 'no address'),
    ],
)
def test_what_is_no_address_is_refused(text, part):
    refused(lambda: read_servers(text), part)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(monkeypatch):
    monkeypatch.setenv('ROBOT_KEY', f' {SECRET}\n')
    key = read_key(options(api_key_env='ROBOT_KEY'), read_servers(LOCAL))
    assert key.header == f'Bearer {SECRET}'
    assert SECRET not in f'{key} {key!r}'
    assert key.hidden_in(f'you sent {SECRET}') == 'you sent ***'


def test_the_key_comes_from_a_file_and_a_file_that_others_can_read_is_told(tmp_path, caplog):
    file = tmp_path / 'key'
    file.write_text(f'{SECRET}\nmore\n')
    file.chmod(0o600)
    chosen = options(api_key_file=str(file))
    assert read_key(chosen, read_servers(LOCAL)).header == f'Bearer {SECRET}'
    assert not caplog.records
    file.chmod(0o644)
    read_key(chosen, read_servers(LOCAL))
    assert 'chmod 600' in caplog.text
    assert SECRET not in caplog.text


def test_a_key_never_travels_unencrypted(monkeypatch):
    monkeypatch.setenv('ROBOT_KEY', SECRET)
    chosen = options(api_key_env='ROBOT_KEY')
    servers = read_servers(f'{LOCAL}, https://a, http://far.example:8000')
    refused(lambda: read_key(chosen, servers), 'http://far.example:8000', 'https')
    assert read_key(chosen, read_servers(f'{LOCAL}, https://a, http://localhost:1'))


def test_a_key_that_is_not_there_or_is_none_is_refused(monkeypatch, tmp_path):
    servers = read_servers(LOCAL)
    monkeypatch.delenv('ROBOT_KEY', raising=False)
    refused(lambda: read_key(options(api_key_env='ROBOT_KEY'), servers), 'not set')
    refused(lambda: read_key(options(api_key_file=str(tmp_path / 'no')), servers), 'No such file')
    monkeypatch.setenv('ROBOT_KEY', f'{SECRET}\r\nX-Evil: 1')
    refused(lambda: read_key(options(api_key_env='ROBOT_KEY'), servers), 'holds no key')
    both = options(api_key_env='ROBOT_KEY', api_key_file='x')
    refused(lambda: read_key(both, servers), 'both')


@pytest.mark.parametrize(
    ('values', 'part'),
    [
        ({'connect_s': '0'}, 'connect_s'),
        ({'first_token_s': 'nan'}, 'first_token_s'),
        ({'choices': 'guided_choice'}, 'structured_outputs'),
        ({'sampling': 'top_k,min_p'}, 'min_p'),
        ({'extra': '[1]'}, 'JSON object'),
        ({'extra': '{"model": "x"}'}, 'model'),
        ({'extra': '{'}, 'JSON object'),
        ({'parallel': 0}, 'parallel'),
        ({'api_key': SECRET}, 'api_key'),
    ],
)
def test_an_option_that_cannot_be_is_refused(values, part):
    refused(lambda: options(**values), part)


def test_options_are_read_as_parameters_give_them():
    chosen = options(connect_s='0.5', max_images=3, logprobs='false', extra='{"min_p": 0.1}')
    assert (chosen.connect_s, chosen.max_images, chosen.logprobs) == (0.5, 3, False)
    assert chosen.extra_fields() == {'min_p': 0.1}
