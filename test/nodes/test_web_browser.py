"""The page in a real browser, over a real node: what a person does, and what he sees.

No test bypasses the page's own policy of content; what the console says is an error.
"""

from __future__ import annotations

import io
import re
import signal
import zipfile
from pathlib import Path

import pytest
from support.browser import browser as started_browser
from support.long_answer import long_words

pytestmark = [pytest.mark.browser, pytest.mark.ros, pytest.mark.slow]

WAIT_MS = 60_000
SCRIPT = """
latency: {decode_s: 0.02}
answers:
  - question: long
    answer: '%s'
  - question: door
    answer: 'yes'
  - question: dog
    answer: '<ref>dog</ref><box>[[100, 200, 500, 600]]</box>'
  - question: markup
    answer: '<img src=x onerror="document.title=1"><b>bold</b>'
  - answer: 'I see {images} pictures.'
"""
VLM = {
    'chip': 'scripted',
    'camera_names': '[front,rear]',
    'cameras.front.topic': '/front/image_raw',
    'cameras.rear.topic': '/rear/image_raw',
    'max_tokens': 1000,
    'frame_wait_s': 0.2,
}


class Robot:
    """The robot behind the page: its node and its camera can be taken away and come back."""

    def __init__(self, robot):
        self.robot = robot
        self.model = robot.script(SCRIPT % long_words(900))
        self.start_vlm()
        self.start_camera()
        served = robot.start('web_main', {'web.port': 0})
        served.wait_for_output('?token=')
        self.url = re.search(r'the page is at (\S+)', served.output())[1]

    def start_vlm(self):
        self.vlm = self.robot.vlm({**VLM, 'model': self.model})

    def start_camera(self):
        self.camera = self.robot.camera(remaps=['image_raw:=/front/image_raw'])


@pytest.fixture(scope='module')
def there(robot):
    return Robot(robot)


@pytest.fixture(scope='module')
def browser():
    with started_browser() as started:
        yield started


@pytest.fixture(scope='module')
def tab(browser, there):
    """The page, opened once, with what its console says and where it asks for anything."""
    context = browser.new_context()
    context.set_default_timeout(WAIT_MS)
    opened = context.new_page()
    said, asked = [], set()
    opened.on('console', lambda message: said.append(f'{message.text} {message.location}'))
    opened.on('pageerror', lambda error: said.append(str(error)))
    opened.on('request', lambda request: asked.add(request.url))
    opened.goto(there.url, wait_until='domcontentloaded')
    yield opened, said, asked
    context.close()


@pytest.fixture
def page(tab, there):
    """The open page; after a test its console has said nothing, and all came from its server."""
    opened, said, asked = tab
    opened.set_viewport_size({'width': 1180, 'height': 900})
    opened.emulate_media(color_scheme='light')
    expect(opened, '#state-text').to_have_text('ready')
    expect(opened, '#blank').to_be_hidden()
    yield opened
    assert said == []
    base = there.url.partition('?')[0]
    # The icon is in the page itself; the socket is no http.
    assert all(url.startswith((base, 'data:', 'ws://127.0.0.1')) for url in asked)


def expect(page, selector, **options):
    from playwright.sync_api import expect as wait_for

    wait_for.set_options(timeout=WAIT_MS)
    return wait_for(page.locator(selector, **options).first)


def ask(page, question):
    page.fill('#question', question)
    page.press('#question', 'Enter')


def test_a_question_streams_into_the_page_and_its_frames_are_shown(page):
    assert page.evaluate('location.search') == '', 'the token is gone from the address'
    ask(page, 'a long one')
    expect(page, '.answer[data-open]:first-child .said').to_contain_text('w001')
    assert 'w899' not in page.inner_text('.answer:first-child .said')
    page.keyboard.press('Escape')
    expect(page, '.answer:first-child .failed').to_contain_text('CANCELLED (302)')
    ask(page, 'What do you see?')
    expect(page, '.answer:first-child .said').to_have_text('I see 1 pictures.')
    expect(page, '.answer:first-child .frames figcaption').to_contain_text(
        re.compile(r'\d m?s old')
    )
    picture = page.locator('.answer:first-child .frames img').first
    picture.scroll_into_view_if_needed()
    expect(page, '.answer:first-child .frames img').to_have_js_property('complete', value=True)
    assert picture.evaluate('image => image.naturalWidth') == 160
    expect(page, '.answer:first-child .legend').to_contain_text('prefill')
    expect(page, '.answer:first-child .bar').to_be_visible()


def test_a_place_that_the_model_names_is_drawn_on_its_frame(page):
    ask(page, 'Where is the dog?')
    expect(page, '.answer:first-child .shot .box').to_have_text('dog')
    frame = page.locator('.answer:first-child .shot img').bounding_box()
    box = page.locator('.answer:first-child .shot .box').bounding_box()
    assert (box['x'] - frame['x']) / frame['width'] == pytest.approx(0.1, abs=0.03)
    assert (box['y'] - frame['y']) / frame['height'] == pytest.approx(0.2, abs=0.03)
    assert box['width'] / frame['width'] == pytest.approx(0.4, abs=0.03)
    assert box['height'] / frame['height'] == pytest.approx(0.4, abs=0.03)


def test_the_keyboard_is_enough(page):
    page.evaluate('document.activeElement.blur()')
    page.keyboard.press('/')
    page.keyboard.type('Is it there?')
    for _ in range(20):
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.id') == 'form':
            break
    page.keyboard.type('yes or no')
    for _ in range(5):
        page.keyboard.press('Tab')
        if page.evaluate('document.activeElement.id') == 'send':
            break
    page.keyboard.press('Enter')
    expect(page, '.answer:first-child .said').to_have_text(re.compile('^(yes|no)'))
    page.select_option('#form', 'free')


def test_what_the_model_says_is_text_and_nothing_else(page):
    ask(page, 'markup <b>of mine</b>')
    expect(page, '.answer:first-child .said').to_have_text(
        '<img src=x onerror="document.title=1"><b>bold</b>'
    )
    assert page.locator('.answer:first-child b', has_text='bold').count() == 0
    assert page.locator('.answer:first-child .asked').first.inner_text() == 'markup <b>of mine</b>'
    assert page.title() == 'Ask the robot'


def test_a_failure_is_a_sentence_and_a_code(page):
    page.click('#about button:has-text("rear")')
    page.click('#about button:has-text("front")')
    ask(page, 'What is behind?')
    expect(page, '.answer:first-child .failed').to_contain_text(
        'no image has come on /rear/image_raw'
    )
    expect(page, '.answer:first-child .failed code').to_have_text('NO_FRAME (200)')
    page.click('#about button:has-text("front")')
    page.click('#about button:has-text("rear")')


def test_an_answer_is_saved_as_a_replay_case(page):
    ask(page, 'Keep this?')
    with page.expect_download() as download:
        page.click('.answer:first-child a:has-text("Keep as replay case")')
    archive = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert 'Keep this?' in archive.read('questions.json').decode()
    assert any(name.endswith('.jpg') for name in archive.namelist())


def test_what_others_ask_is_seen(page, there):
    answer = there.robot.client.ask('Who asks?', request_id='somebody-else')
    expect(page, '#others li').to_contain_text('somebody-else')
    expect(page, '#others li').to_contain_text(answer.text)


def test_a_watch_and_its_events_are_seen(page, there):
    from edge_vlm_ros.msg import WatchSpec
    from edge_vlm_ros.srv import Unwatch, Watch

    client = there.robot.client
    watch = client.node.create_client(Watch, '/vlm/watch')
    unwatch = client.node.create_client(Unwatch, '/vlm/unwatch')
    client.until(lambda: watch.service_is_ready() and unwatch.service_is_ready())
    spec = WatchSpec(name='door', question='Is the door open?', period_s=0.2, every_look=True)
    response = client.result(watch.call_async(Watch.Request(watch=spec)))
    assert response.success, response.message
    expect(page, '#watches li').to_contain_text('door')
    expect(page, '#watches li').to_contain_text('Is the door open?')
    expect(page, '#watches li').to_contain_text('event on')
    expect(page, '#watches li').to_contain_text(re.compile(r'yes \d+ %'))
    expect(page, '#events li').to_contain_text('door')
    expect(page, '#events li').to_contain_text('begins')
    client.result(unwatch.call_async(Unwatch.Request(name='door')))
    expect(page, '#events li').to_contain_text('ends')
    expect(page, '#watches li').to_have_text('none is set')
    client.node.destroy_client(watch)
    client.node.destroy_client(unwatch)


def test_diagnostics_are_folded_and_open_on_demand(page):
    expect(page, '#diagnostics-sum').not_to_be_empty()
    assert page.locator('#parts section').count() == 0
    page.click('#diagnostics summary')
    expect(page, '#parts section', has_text='queue').to_contain_text('policy')
    expect(page, '#parts section', has_text='camera front').to_contain_text('/front/image_raw')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone_has_all_of_it_in_one_column(page, scheme):
    page.emulate_media(color_scheme=scheme)
    light = page.evaluate('getComputedStyle(document.body).backgroundColor')
    page.set_viewport_size({'width': 360, 'height': 740})
    ask(page, 'On a phone?')
    expect(page, '.answer:first-child .bar').to_be_visible()
    assert page.evaluate('document.documentElement.scrollWidth') <= 360
    order = ('camera-card', 'ask', 'answers', 'watch-card', 'others-card', 'diagnostics')
    tops = [page.locator(f'#{name}').bounding_box()['y'] for name in order]
    assert tops == sorted(tops)
    assert (light == 'rgb(18, 22, 26)') == (scheme == 'dark')


def test_a_hidden_page_looks_at_no_camera(page, there):
    client = there.robot.client

    def looks():
        found = client.node.get_subscriber_names_and_types_by_node('vlm_web', '/')
        return '/front/image_raw' in {name for name, _ in found}

    client.until(looks)
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    event = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(f'() => {{ {hide % "true"} {event} }}')
    client.until(lambda: not looks())
    page.evaluate(f'() => {{ {hide % "false"} {event} }}')
    client.until(looks)
    expect(page, '#blank').to_be_hidden()


def test_a_camera_that_is_lost_is_seen_to_be_lost_and_comes_back(page, there):
    there.camera.stop()
    expect(page, '#blank').to_have_text(re.compile(r'no picture for \d+ s'))
    expect(page, '#diagnostics-sum').to_contain_text('camera front')
    there.start_camera()
    expect(page, '#blank').to_be_hidden()


def test_a_node_that_is_started_again_is_found_by_the_open_page(page, there):
    ask(page, 'a long one')
    expect(page, '.answer[data-open]:first-child .said').to_contain_text('w001')
    there.vlm.signal(signal.SIGKILL)  # it says no farewell
    expect(page, '.answer:first-child .failed').to_contain_text('NOT_READY (303)')
    expect(page, '#state-text').to_contain_text('nothing is heard of /vlm')
    client = there.robot.client
    client.diagnostics.clear()
    there.start_vlm()
    expect(page, '#state-text').to_have_text('ready')
    expect(page, '#blank').to_be_hidden()
    client.until_frames('front')
    ask(page, 'And now?')
    expect(page, '.answer:first-child .said').to_have_text('I see 1 pictures.')


def test_a_node_that_is_killed_and_there_again_at_once_leaves_no_question_open(page, there):
    ask(page, 'a long one')
    expect(page, '.answer[data-open]:first-child .said').to_contain_text('w001')
    there.vlm.signal(signal.SIGKILL)
    there.start_vlm()
    expect(page, '.answer:first-child .failed').to_contain_text('NOT_READY (303)')
    expect(page, '#state-text').to_have_text('ready')


def test_without_the_token_a_browser_sees_nothing(browser, there):
    context = browser.new_context()
    response = context.new_page().goto(there.url.partition('?')[0])
    assert response.status == 401
    context.close()
