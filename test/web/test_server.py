"""What a page gets: moving images while it looks, its answers with the frames they used, news."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from support.page_robot import answer_to, frame, jpeg
from support.page_site import next_picture, run, serve, until

from edge_vlm_ros.replay import open_recording, read_questions
from edge_vlm_ros.web import (
    Diagnostics,
    Overheard,
    Part,
    Picture,
    Request,
    State,
    Watches,
    WatchEvent,
)
from edge_vlm_ros.web.cases import Cases
from edge_vlm_ros.web.pictures import Found

S = 10**9


def test_a_camera_is_open_exactly_while_somebody_looks():
    async def visit():
        async with serve() as served:
            assert served.robot.hear is None, 'nobody has the page open'
            async with served.page() as page, served.page() as other:
                assert not served.robot.shows
                await page.say(kind='look', cameras=['front', 'rear'])
                await until(lambda: set(served.robot.shows) == {'front', 'rear'})
                await other.say(kind='look', cameras=['front'])
                await page.say(kind='look', cameras=[])
                await until(lambda: set(served.robot.shows) == {'front'})
            await until(lambda: not served.robot.shows and served.robot.hear is None)

    run(visit())


def test_a_moving_image_goes_on_while_it_is_taken_and_then_the_camera_is_closed():
    async def visit():
        async with serve() as served, served.page():
            async with served.get('camera/front') as response:
                assert response.content_type == 'multipart/x-mixed-replace'
                await until(lambda: 'front' in served.robot.shows)
                for stamp in (1, 2):
                    served.robot.shows['front'](Picture(stamp, jpeg(stamp * 50)))
                    assert await next_picture(response) == jpeg(stamp * 50)
            await until(lambda: not served.robot.shows)  # also where the camera is silent
            async with served.get('camera/nobody') as response:
                assert response.status == 404

    run(visit())


def test_a_question_streams_and_its_answer_shows_the_very_frames():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.say(kind='look', cameras=['front'])
            await until(lambda: 'front' in served.robot.shows)
            for n in range(3):
                served.robot.shows['front'](Picture(n * S, jpeg(n * 60), is_whole=n != 1))
            accepted = await page.ask(cameras=['front'], last_seconds=4, choices=['a', 'b'])
            (request,) = served.robot.asked
            assert request.request_id == accepted['request_id']
            assert (request.cameras, request.last_seconds) == (('front',), 4.0)
            assert request.choices == ('a', 'b')
            served.robot.deltas[request.request_id]('a red')
            assert await page.hear('delta') == {'kind': 'delta', 'id': 'q1', 'delta': 'a red'}
            frames = [
                frame('front', 2 * S),
                frame('front', S + S // 10),
                frame('front', 9 * S),
                frame('rear', 2 * S),
            ]
            served.robot.answer(request, frames=frames)
            answer = await page.hear('answer')
            assert answer['answer']['text'] == 'a red box'
            assert answer['pictures'] == [
                {'kept': True, 'offset_s': 0.0, 'is_whole': True},
                {'kept': True, 'offset_s': -0.1, 'is_whole': False},
                {'kept': False},
                {'kept': False},
            ]
            for index, expected in enumerate((jpeg(120), jpeg(60), None, None, None)):
                async with served.get(f'picture/{answer["number"]}/{index}') as response:
                    assert response.status == (404 if expected is None else 200)
                    assert expected is None or await response.read() == expected

    run(talk())


def test_an_answer_is_kept_as_a_case_with_its_frames_and_its_question():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.say(kind='look', cameras=['front'])
            await until(lambda: 'front' in served.robot.shows)
            served.robot.shows['front'](Picture(5 * S, jpeg(7)))
            await page.ask(cameras=['front'], choices=['yes', 'no'])
            frames = [frame('front', S), frame('front', 5 * S)]
            served.robot.answer(served.robot.asked[0], frames=frames, text='yes')
            number = (await page.hear('answer'))['number']
            async with served.get(f'case/{number}.zip') as response:
                assert response.headers['Content-Disposition'].startswith('attachment')
                return zipfile.ZipFile(io.BytesIO(await response.read()))

    archive = run(talk())
    (question,) = json.loads(archive.read('questions.json'))['questions']
    assert question == {
        'at_s': 0.0,
        'question': 'what?',
        'choices': ['yes', 'no'],
        'expect': 'yes',
    }
    names = [name for name in archive.namelist() if name.endswith('.jpg')]
    assert [archive.read(name) for name in names] == [jpeg(7)]
    assert json.loads(archive.read('answer.json'))['answer']['text'] == 'yes'


def test_a_case_of_several_frames_is_replayed_with_all_of_them(tmp_path):
    cases = Cases()
    request = Request('r', 'what?', last_seconds=8)
    frames = [frame('front', stamp) for stamp in (1, 2, 3)]

    def find(_camera, stamp_ns):
        return None if stamp_ns == 2 else Found(Picture(stamp_ns, jpeg(stamp_ns)), 0)

    number, _ = cases.add(request, answer_to(request, frames=frames), find)
    archive = zipfile.ZipFile(io.BytesIO(cases.archive(number)))
    archive.extractall(tmp_path)
    (question,) = read_questions(tmp_path / 'questions.json')
    assert (question.at_s, question.last_seconds) == (0.5, 0.5)
    assert question.expect == 'a red box'
    times = [arrival.time_ns for arrival in open_recording(f'{tmp_path}/frames', {}).arrivals()]
    assert times == [0, S // 2]


def test_a_failure_is_an_answer_with_a_code():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.ask()
            failed = {'error_code': 201, 'error_code_name': 'STALE_FRAME', 'text': ''}
            served.robot.answer(served.robot.asked[0], message='the camera stands', **failed)
            answer = (await page.hear('answer'))['answer']
            assert failed.items() <= answer.items()

    run(talk())


def test_a_question_is_cancelled_by_its_page_alone_and_when_that_closes():
    async def talk():
        async with serve() as served, served.page() as other:
            async with served.page() as page:
                await page.ask()
                await other.say(kind='cancel', id='q1')
                await page.say(kind='cancel', id='q2')
                await page.say(kind='cancel', id='q1')
                await until(lambda: served.robot.cancelled)
                assert served.robot.cancelled == [served.robot.asked[0].request_id]
            await until(lambda: len(served.robot.cancelled) == 2)
            served.robot.answer(served.robot.asked[0])  # to nobody
            await other.ask()

    run(talk())


def test_a_second_answer_is_no_answer():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.ask()
            answer = served.robot.answers[served.robot.asked[0].request_id]
            served.robot.answer(served.robot.asked[0])
            await page.hear('answer')
            answer({'text': 'once more', 'frames': []})
            await page.say(kind='x')
            assert (await page.hear('answer', 'error'))['kind'] == 'error'

    run(talk())


@pytest.mark.parametrize(
    'message',
    [{'kind': 'ask', 'id': 'q', 'question': 'x'}, {'kind': 'cancel', 'id': 'q'},
     {'kind': 'reset', 'session': 's'}],
)  # fmt: skip
def test_a_page_that_is_read_only_shows_and_asks_nothing(message):
    async def talk():
        async with serve(read_only=True) as served, served.page() as page:
            await page.say(**message)
            assert (await page.hear('error'))['error_code_name'] == 'UNSUPPORTED_OPTION'
            robot = served.robot
            assert (robot.asked, robot.cancelled, robot.reset) == ([], [], [])
            await page.say(kind='look', cameras=['front'])
            await until(lambda: 'front' in served.robot.shows)

    run(talk())


def test_a_conversation_goes_on_and_is_forgotten():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.ask(session='s1')
            assert served.robot.asked[0].session_id == 's1'
            await page.say(kind='reset', session='s1')
            await until(lambda: served.robot.reset == ['s1'])

    run(talk())


def test_all_pages_hear_what_the_robot_says_and_one_that_comes_later_what_holds():
    async def talk():
        async with serve() as served, served.page() as page:
            hear = served.robot.hear
            hear(Watches(({'spec': {'name': 'door'}, 'state': 3},)))
            hear(WatchEvent({'watch': 'door', 'kind': 1}))
            hear(Diagnostics((Part('queue', 1, 'full', {'open': '8'}),)))
            hear(State('loading: 1 of 2 parts'))
            async with served.page() as later:
                for one in (page, later):
                    assert (await one.hear('watches'))['watches'][0]['state'] == 3
                    assert (await one.hear('event'))['event']['watch'] == 'door'
                async with served.page() as last:
                    assert (await last.hear('diagnostics'))['parts'][0]['level'] == 1

    run(talk())


def test_what_others_ask_is_heard_by_all_but_who_asked():
    async def talk():
        async with serve() as served, served.page() as page, served.page() as other:
            request_id = (await page.ask())['request_id']
            for name in (request_id, 'from-elsewhere'):
                served.robot.hear(Overheard(name, 'yes', done=True))
            assert (await other.hear('overheard'))['request_id'] == request_id
            assert (await other.hear('overheard'))['request_id'] == 'from-elsewhere'
            assert (await page.hear('overheard'))['request_id'] == 'from-elsewhere'

    run(talk())


def test_pages_hear_each_second_how_long_a_camera_has_been_silent():
    async def talk():
        async with serve() as served, served.page() as page:
            await page.say(kind='look', cameras=['front'])
            assert (await page.hear('feeds'))['feeds'][0]['silence_s'] is None
            served.robot.shows['front'](Picture(1, jpeg()))
            (feed,) = (await page.hear('feeds'))['feeds']
            assert (feed['name'], feed['pictures']) == ('front', 1)
            assert feed['silence_s'] >= 0

    run(talk())


def test_a_server_that_ends_leaves_no_page_and_no_image_open():
    async def visit():
        async with serve() as served, served.page() as page, served.get('camera/front'):
            await page.say(kind='look', cameras=['front'])
            await until(lambda: 'front' in served.robot.shows)
            robot = served.robot
            for task in served.tasks():
                task.cancel()
            await until(lambda: robot.hear is None)
            await until(lambda: not robot.shows)

    run(visit())
