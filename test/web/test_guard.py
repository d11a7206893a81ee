"""Who may come in, and what a page of somebody else can do: nothing."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aiohttp import WSServerHandshakeError
from support.page_site import TOKEN, run, serve

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.web import Guard, bounds, is_loopback, read_token
from edge_vlm_ros.web.door import open_door
from edge_vlm_ros.web.guard import HEADERS, Visit

PATHS = [
    '', 'page.css', 'page.js', 'camera/front', 'picture/1/0', 'case/1.zip', 'socket', 'nothing',
]  # fmt: skip


def status(guard, **visit):
    refusal = guard.refusal(Visit(**{'host': '127.0.0.1:8080', 'cookie': TOKEN, **visit}))
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize('host', ['127.0.0.1:8080', 'localhost:8080', 'LOCALHOST', '[::1]:9'])
def test_on_loopback_the_machines_own_names_are_known_at_any_port(host):
    """At any port: a tunnel (ssh -L) ends at another."""
    assert status(Guard(TOKEN, '127.0.0.1'), host=host) == 200


@pytest.mark.parametrize(
    'host',
    ['', 'evil.example', 'evil.example:8080', '127.0.0.1.evil.example', '10.0.0.1:8080', '[::1',
     'localhost.evil.example', 'robot', '127.0.0.1@evil.example', 'evil.example#127.0.0.1'],
)  # fmt: skip
def test_on_loopback_any_other_host_is_refused(host):
    assert status(Guard(TOKEN, '127.0.0.1'), host=host) == 403


def test_on_the_network_addresses_the_machines_name_and_further_names_are_known():
    guard = Guard(TOKEN, '0.0.0.0', ['Robot.lan'])
    own = socket.gethostname()
    for host in ('192.168.1.7:8080', '[fe80::1]:8080', f'{own}:8080', 'robot.lan', 'localhost'):
        assert status(guard, host=host) == 200, host
    for host in ('evil.example', '192.168.1.7.evil.example', '0.0.0.0.evil.example'):
        assert status(guard, host=host) == 403, host


def test_an_address_alone_is_known_by_itself_and_by_the_machines_name():
    guard = Guard(TOKEN, '192.168.1.7')
    assert status(guard, host='192.168.1.7:8080') == 200
    assert status(guard, host='192.168.1.8:8080') == 403
    assert status(guard, host='localhost:8080') == 403


@pytest.mark.parametrize(
    ('origin', 'expected'),
    [
        ('', 200),
        ('http://127.0.0.1:8080', 200),
        ('https://127.0.0.1:8080', 200),
        ('http://127.0.0.1:8081', 403),
        ('http://127.0.0.1', 403),
        ('http://localhost:8080', 403),
        ('http://evil.example', 403),
        ('http://evil.example:8080', 403),
        ('null', 403),
        ('file://127.0.0.1:8080', 403),
        ('http://[::1', 403),
    ],
)
def test_an_origin_is_the_very_host_or_refused(origin, expected):
    assert status(Guard(TOKEN, '127.0.0.1'), origin=origin) == expected


@pytest.mark.parametrize('cookie', ['', 'x', TOKEN[:-1], TOKEN + 'x', 'ß\x00', TOKEN.upper()])
def test_without_the_token_nobody_comes_in(cookie):
    guard = Guard(TOKEN, '127.0.0.1')
    assert status(guard, cookie=cookie) == 401
    assert status(guard, cookie='', token=cookie) == 401
    assert status(guard, cookie='', token=TOKEN) == 200


def test_the_token_is_compared_in_constant_time(monkeypatch):
    compared = []
    monkeypatch.setattr(
        'edge_vlm_ros.web.guard.hmac.compare_digest', lambda *both: compared.append(both) or False
    )
    assert status(Guard(TOKEN, '127.0.0.1')) == 401
    assert compared == [(TOKEN.encode(), TOKEN.encode())]


def test_two_robots_of_one_machine_have_a_cookie_each():
    names = {Guard(token, '127.0.0.1').cookie_name for token in (TOKEN, TOKEN + '2')}
    assert len(names) == 2


@pytest.mark.parametrize(
    'text', ['', 'short', 'x' * (bounds.MIN_TOKEN_CHARS - 1), 'schlüssel-schlüssel', '\n' + TOKEN]
)
def test_a_file_without_a_token_is_refused(tmp_path, text):
    (tmp_path / 'token').write_text(text)
    with pytest.raises(BadRequestError, match='at least 16 printable'):
        read_token(str(tmp_path / 'token'))


def test_a_token_is_the_first_line_of_its_file_and_is_not_printed(tmp_path):
    path = tmp_path / 'token'
    path.write_text(f'{TOKEN}\nand a remark\n')
    door = open_door('127.0.0.1', (), str(path))
    assert door.guard.is_token(TOKEN)
    assert TOKEN not in ' '.join(door.announcement('http://127.0.0.1:1/'))
    with pytest.raises(BadRequestError, match='cannot read the token'):
        open_door('127.0.0.1', (), str(tmp_path / 'nowhere'))


def test_a_token_that_is_made_up_is_long_new_and_printed_with_the_address():
    doors = [open_door('127.0.0.1', (), '') for _ in range(2)]
    assert doors[0].token != doors[1].token
    assert len(doors[0].token) >= 32
    (line,) = doors[0].announcement('http://127.0.0.1:1/')
    assert line.endswith(f'http://127.0.0.1:1/?token={doors[0].token}')


def test_whoever_serves_the_network_is_told_so():
    assert len(open_door('0.0.0.0', (), '').announcement('http://0.0.0.0:1/')) == 2
    assert [is_loopback(h) for h in ('127.0.0.1', 'localhost', '127.0.0.2', '::1')] == [True] * 4
    assert not any(map(is_loopback, ('0.0.0.0', '::', 'robot', '10.0.0.1')))


@pytest.mark.parametrize('path', PATHS)
def test_every_path_is_guarded_and_has_the_headers(path):
    async def visit():
        async with serve() as served:
            refused = [
                ({}, 401),
                ({'Cookie': f'{served.cookie_name}=wrong'}, 401),
                ({**served.cookies, 'Host': 'evil.example'}, 403),
                ({**served.cookies, 'Origin': 'http://evil.example'}, 403),
            ]
            for headers, expected in refused:
                async with served.session.get(served.url + path, headers=headers) as response:
                    assert response.status == expected, headers
                    assert HEADERS.items() <= dict(response.headers).items()
            assert not served.robot.shows
            assert served.robot.hear is None
            if path.startswith('camera'):
                return
            async with served.get(path) as response:
                assert response.status in {200, 403, 404}
                assert HEADERS.items() <= dict(response.headers).items()

    run(visit())


def test_the_policy_of_content_lets_nothing_in_from_elsewhere():
    policy = dict(
        rule.strip().split(' ', 1) for rule in HEADERS['Content-Security-Policy'].split(';')
    )
    assert policy.pop('img-src') == "'self' data:"
    assert set(policy.values()) == {"'none'", "'self'"}
    assert policy['default-src'] == policy['frame-ancestors'] == policy['base-uri'] == "'none'"
    assert policy['script-src'] == policy['style-src'] == policy['connect-src'] == "'self'"


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_gets():
    async def visit():
        async with serve() as served:
            async with served.session.get(f'{served.url}?token={TOKEN}') as response:
                assert response.status == 200
                cookie = response.cookies[served.cookie_name]
            assert cookie.value == TOKEN
            assert cookie['httponly']
            assert cookie['samesite'] == 'Strict'
            async with served.get('') as response:
                assert not response.cookies, 'a cookie is given for the token alone'
            async with served.session.get(f'{served.url}?token=wrong') as response:
                assert response.status == 401
                assert not response.cookies

    run(visit())


@pytest.mark.parametrize(
    'headers', [{'Origin': 'http://evil.example'}, {'Origin': ''}, {'Host': 'evil.example'},
                {'Origin': 'http://localhost:1'}, {'Cookie': 'a=b'}],
)  # fmt: skip
def test_a_socket_is_refused_to_foreign_pages_and_to_who_has_no_token(headers):
    async def visit():
        async with serve() as served:
            with pytest.raises(WSServerHandshakeError):
                async with served.page(**headers):
                    pass
            assert served.robot.hear is None

    run(visit())


@pytest.mark.parametrize('method', ['POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH'])
def test_nothing_but_get_is_served_and_no_other_origin_is_allowed(method):
    async def visit():
        async with (
            serve() as served,
            served.session.request(method, served.url, headers=served.cookies) as response,
        ):
            assert response.status == 405
            assert not any(name.startswith('Access-Control') for name in response.headers)

    run(visit())


@pytest.mark.parametrize(
    'path',
    ['../server.py', '..%2fserver.py', 'page.html/../../server.py', 'page.py', 'server.py',
     'assets/page.js', '%2e%2e/%2e%2e/etc/passwd', 'camera/../../server.py', 'page.js%00',
     'case/../server.py', 'picture/1/..%2f0'],
)  # fmt: skip
def test_no_file_is_named_by_a_request(path):
    async def visit():
        async with serve() as served:
            reader, writer = await asyncio.open_connection(*served.host.split(':'))
            cookie = served.cookies['Cookie']
            request = f'GET /{path} HTTP/1.1\r\nHost: {served.host}\r\nCookie: {cookie}\r\n\r\n'
            writer.write(request.encode())
            line = await reader.readline()
            writer.close()
            assert line.split()[1] in {b'400', b'404'}, line

    run(visit())
