"""Every bound of `web/bounds.py`, tried: what is above it is refused or dropped, and said so."""

from __future__ import annotations

import ast
import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from aiohttp import WSMsgType, WSServerHandshakeError
from support.page_robot import answer_to, frame, jpeg
from support.page_site import run, serve, until

from edge_vlm_ros.core import BadRequestError
from edge_vlm_ros.web import Picture, Request, bounds, messages
from edge_vlm_ros.web.cases import Cases
from edge_vlm_ros.web.feeds import Feed, moving
from edge_vlm_ros.web.page_link import Outbox
from edge_vlm_ros.web.pictures import Found, PictureStore

S = 10**9
HERE = Path(__file__)


def read(**message):
    return messages.read(json.dumps(message), cameras=('front', 'rear'), prefix='web')


def ask(**fields):
    return read(**{'kind': 'ask', 'id': 'q', 'question': 'what?', **fields}).request


@pytest.mark.parametrize(
    ('field', 'most', 'above', 'said'),
    [
        ('question', 'x' * bounds.MAX_QUESTION_CHARS, 'x' * 4001, '4001 .* the limit is 4000'),
        ('id', 'x' * bounds.MAX_NAME_CHARS, 'x' * 65, 'id has 65 .* the limit is 64'),
        ('session', 'x' * bounds.MAX_NAME_CHARS, 'x' * 65, 'session has 65'),
        ('choices', ['x'] * bounds.MAX_CHOICES, ['x'] * 33, 'choices has 33 .* the limit is 32'),
        ('choices', ['x' * bounds.MAX_CHOICE_CHARS], ['x' * 201], 'choices has 201'),
        ('last_seconds', bounds.MAX_LAST_SECONDS, 600.1, 'from 0 to 600, not 600.1'),
        ('max_frames', bounds.MAX_FRAMES, 65, 'from 0 to 64, not 65'),
        ('timeout_s', bounds.MAX_TIMEOUT_S, 3601, 'from 0 to 3600'),
        ('cameras', ['front', 'rear'], ['front', 'rear', 'front'], 'cameras has 3'),
    ],
)
def test_a_field_is_taken_up_to_its_limit_and_refused_above(field, most, above, said):
    assert ask(**{field: most})
    with pytest.raises(BadRequestError, match=said):
        ask(**{field: above})


@pytest.mark.parametrize(
    'text',
    ['', 'x', '[]', '"x"', '1', 'null', '{}', '{"kind": 1}', '{"kind": "shut down"}',
     '{"kind": "ask"}', '{"kind": "ask", "id": "q"}', '{"kind": "ask", "id": "", "question": "x"}',
     '{"kind": "ask", "id": "q", "question": "  "}',
     '{"kind": "ask", "id": ["q"], "question": ""}',
     '{"kind": "cancel"}', '{"kind": "reset"}', '{"kind": "look", "cameras": "front"}',
     '{"kind": "look", "cameras": [1]}', '{"kind": "look", "cameras": ["../front"]}',
     '{"kind": "ask", "id": "q", "question": "x", "last_seconds": NaN}',
     '{"kind": "ask", "id": "q", "question": "x", "last_seconds": true}',
     '{"kind": "ask", "id": "q", "question": "x", "last_seconds": -1}',
     '{"kind": "ask", "id": "q", "question": "x", "timeout_s": 1e999}',
     '{"kind": "ask", "id": "q", "question": "x", "max_frames": "1"}',
     '{"kind": "ask", "id": "q", "question": "x", "choices": [{}]}',
     '[' * 60000],
)  # fmt: skip
def test_what_is_no_message_is_refused(text):
    with pytest.raises(BadRequestError):
        messages.read(text, cameras=('front',), prefix='web')


def test_lone_surrogates_become_text():
    assert ask(question='a\ud800b').question == 'a?b'


def test_only_cameras_that_there_are_can_be_looked_at():
    assert read(kind='look', cameras=['rear', 'rear']).cameras == ('rear',)
    with pytest.raises(BadRequestError, match="no camera '/etc/passwd'"):
        read(kind='look', cameras=['/etc/passwd'])


def test_a_message_above_the_limit_closes_the_socket():
    async def talk():
        async with serve() as served, served.page() as page:
            inside = json.dumps({'kind': 'x', 'fill': ''})
            fill = 'x' * (bounds.MAX_MESSAGE_BYTES - len(inside) - 1)
            await page.say(kind='x', fill=fill)
            assert (await page.hear('error'))['error_code'] == 100
            await page.say(kind='x', fill=f'{fill}xx')
            while (message := await page.socket.receive()).type is WSMsgType.TEXT:
                pass
            assert message.data == 1009

    run(talk())


def test_a_body_above_the_limit_is_no_ones_memory():
    """No path takes a body at all."""

    async def visit():
        async with (
            serve() as served,
            served.session.get(
                served.url, headers=served.cookies, data=b'x' * (bounds.MAX_BODY_BYTES + 1)
            ) as response,
        ):
            assert response.status in {200, 413}
            assert served.hub.cases.nbytes == 0

    run(visit())


def test_so_many_pages_are_let_in_and_one_that_goes_makes_room():
    async def visit():
        async with serve() as served, AsyncExitStack() as stack:
            for _ in range(bounds.MAX_PAGES - 1):
                await stack.enter_async_context(served.page())
            async with served.page():
                with pytest.raises(WSServerHandshakeError, match='503'):
                    async with served.page():
                        pass
            for _ in range(500):  # the server sees it go a moment later
                try:
                    async with served.page():
                        return
                except WSServerHandshakeError:  # noqa: PERF203
                    await asyncio.sleep(0.01)
            pytest.fail('a page that went made no room')

    run(visit())


def test_so_many_moving_images_are_let_in():
    async def visit():
        async with serve() as served, served.page(), AsyncExitStack() as stack:
            for _ in range(bounds.MAX_STREAMS):
                response = await stack.enter_async_context(served.get('camera/front'))
                assert response.status == 200
            async with served.get('camera/front') as response:
                assert response.status == 503

    run(visit())


def test_a_page_has_so_many_questions_open():
    async def talk():
        async with serve() as served, served.page() as page:
            for number in range(bounds.MAX_OPEN):
                await page.ask(f'q{number}')
            await page.say(kind='ask', id='more', question='what?')
            error = await page.hear('error')
            assert (error['id'], error['error_code_name']) == ('more', 'BUSY')
            await page.say(kind='ask', id='q0', question='what?')
            assert (await page.hear('error'))['error_code_name'] == 'DUPLICATE_REQUEST'
            served.robot.answer(served.robot.asked[0])
            await page.hear('answer')
            await page.ask('more')
            assert len(served.robot.asked) == bounds.MAX_OPEN + 1

    run(talk())


def test_a_slow_browser_misses_text_that_streams_and_no_answer():
    async def fill():
        outbox = Outbox()
        outbox.put({'kind': 'answer', 'id': 'q0'})
        for number in range(3 * bounds.MAX_WAITING):
            outbox.put({'kind': 'delta', 'n': number})
        outbox.put({'kind': 'answer', 'id': 'q1'})
        assert len(outbox) == bounds.MAX_WAITING
        assert outbox.dropped == 2 * bounds.MAX_WAITING + 2
        found = [json.loads(await outbox.get()) for _ in range(bounds.MAX_WAITING)]
        assert [m['id'] for m in found if m['kind'] == 'answer'] == ['q0', 'q1']
        for number in range(2 * bounds.MAX_WAITING):
            outbox.put({'kind': 'answer', 'id': number})
        assert len(outbox) == bounds.MAX_WAITING
        assert json.loads(await outbox.get())['id'] == bounds.MAX_WAITING

    run(fill())


def test_pictures_are_kept_by_bytes_and_by_time():
    one = len(jpeg())
    store = PictureStore(max_bytes=3 * one, max_s=10.0)
    for second in range(5):
        store.add(Picture(second * S, jpeg()))
    assert (len(store), store.nbytes) == (3, 3 * one)
    store.add(Picture(30 * S, jpeg()))
    assert (len(store), store.nbytes) == (1, one)
    PictureStore(max_bytes=1).add(Picture(0, jpeg()))  # the newest always
    assert PictureStore()._max_bytes == bounds.STORE_BYTES
    assert PictureStore()._max_ns == bounds.STORE_S * S


def test_a_picture_above_the_limit_is_neither_kept_nor_shown():
    async def show():
        feed = Feed()
        feed.show(Picture(1, b'x' * bounds.MAX_JPEG_BYTES))
        feed.show(Picture(2, b'x' * (bounds.MAX_JPEG_BYTES + 1)))
        assert feed.newest.stamp_ns == 1
        assert feed.count == len(feed.store) == 1

    run(show())


def test_answers_are_kept_by_number_and_by_bytes():
    request = Request('r', 'what?')

    def answer():
        return answer_to(request, frames=[frame('front', 1)])

    def found(*_):
        return Found(Picture(1, bytes(100)), 0)

    cases = Cases()
    numbers = [cases.add(request, answer(), found)[0] for _ in range(bounds.CASE_ANSWERS + 1)]
    assert cases.picture(numbers[0], 0) is None
    assert cases.archive(numbers[0]) is None
    assert cases.picture(numbers[1], 0) == bytes(100)
    small = Cases(max_bytes=250)
    numbers = [small.add(request, answer(), found)[0] for _ in range(4)]
    assert small.nbytes == 200
    assert [small.picture(n, 0) is not None for n in numbers] == [False, False, True, True]
    assert Cases()._max_bytes == bounds.CASE_BYTES


def test_a_moving_image_leaves_out_what_comes_faster_than_it_may():
    async def watch():
        feed = Feed()
        loop = asyncio.get_running_loop()
        seen = []

        async def send():
            for stamp in range(200):
                feed.show(Picture(stamp, b'x'))
                await asyncio.sleep(0)
            await asyncio.sleep(3 / bounds.MAX_FPS)
            feed.show(Picture(1000, b'x'))

        sender = asyncio.ensure_future(send())
        began = loop.time()
        async for picture in moving(feed):
            if picture is not None:
                seen.append(picture.stamp_ns)
                if picture.stamp_ns == 1000:
                    break
        await sender
        assert len(seen) <= 1 + (loop.time() - began) * bounds.MAX_FPS + 1
        assert seen == sorted(seen)

    run(watch())


def test_a_browser_that_takes_no_pictures_any_more_is_left(monkeypatch):
    monkeypatch.setattr(bounds, 'STALLED_S', 0.3)

    async def visit():
        async with serve() as served, served.page():
            _reader, writer = await asyncio.open_connection(*served.host.split(':'), limit=1024)
            cookie = served.cookies['Cookie']
            head = f'Host: {served.host}\r\nCookie: {cookie}\r\n\r\n'
            writer.write(f'GET /camera/front HTTP/1.1\r\n{head}'.encode())
            await until(lambda: 'front' in served.robot.shows)
            show, stamp = served.robot.shows['front'], 0
            while 'front' in served.robot.shows:  # nobody reads
                stamp += 1
                show(Picture(stamp, bytes(1 << 20)))
                await asyncio.sleep(0.01)
            assert served.hub.feeds.get('front') is None
            writer.close()

    run(visit())


def test_a_page_that_does_not_answer_pings_is_gone(monkeypatch):
    monkeypatch.setattr(bounds, 'HEARTBEAT_S', 0.2)

    async def visit():
        async with serve() as served:
            headers = {'Origin': served.url.rstrip('/'), **served.cookies}
            async with served.session.ws_connect(
                f'{served.url}socket', headers=headers, autoping=False
            ):
                await until(lambda: served.robot.hear is not None)
                await until(lambda: served.robot.hear is None)

    run(visit())


def test_every_bound_is_named_in_a_test():
    """A new one is no bound before it was tried."""
    tree = ast.parse(Path(bounds.__file__).read_text())
    names = {
        node.target.id
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and not node.target.id.startswith('_')
    }
    text = HERE.read_text() + HERE.with_name('test_guard.py').read_text()
    tried = {name for name in names if f'bounds.{name}' in text or f"bounds, '{name}'" in text}
    assert names == tried
