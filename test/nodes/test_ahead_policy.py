"""What is wished of the backend between questions, and which frames a question shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

import numpy as np  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from edge_vlm_ros.srv import Ask  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from support.clock import ManualClock  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    BadFrame,
    FinishReason,
    FrameSource,
    NoFreshFrameError,
    RawImage,
    Readiness,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.nodes.admission import Admission, admit  # noqa: E402
from edge_vlm_ros.nodes.ahead_parameters import AheadSettings  # noqa: E402
from edge_vlm_ros.nodes.ahead_policy import AheadPolicy  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.health import CameraHealth  # noqa: E402
from edge_vlm_ros.nodes.looks import Looks  # noqa: E402
from edge_vlm_ros.nodes.node_time import Moment  # noqa: E402
from edge_vlm_ros.nodes.request_parameters import RequestDefaults  # noqa: E402
from edge_vlm_ros.serving.ahead import AheadReport, PreparesAhead  # noqa: E402
from edge_vlm_ros.serving.shown_frames import name_frame  # noqa: E402
from edge_vlm_ros.vision import FrameBuffer  # noqa: E402

S = 10**9
DEFAULTS = RequestDefaults(
    max_frames=8,
    max_age_s=2.0,
    frame_wait_s=1.0,
    timeout_s=10.0,
    max_tokens=50,
    system_prompt='',
    max_repeats=32,
)


class Feed:
    """A camera whose pictures come from the test."""

    def __init__(self, name):
        self.buffer = FrameBuffer(max_frames=1000, max_seconds=1000, max_bytes=10**9)
        self.newest = None
        self.name = name

    def health(self):
        return CameraHealth(name=self.name, topic=f'/{self.name}')

    def drop_bad(self, bad):
        self.newest = None


class Backend:
    """Keeps what it was told."""

    def __init__(self):
        self.wishes, self.offers = [], []

    def want_prefix(self, prefix):
        self.wishes.append(prefix)

    def offer_frames(self, frames, shown_as=None):
        self.offers.append((frames, shown_as))

    def listen_ahead(self, on_ahead):
        pass


class Robot:
    """Cameras, a policy and time; what is said is what happens."""

    def __init__(self, cameras=('front', 'rear'), **settings):
        chosen = {'mode': 'prefill', 'watches': (cameras[:1]), **settings}
        chosen['watches'] = tuple(
            (each,) if isinstance(each, str) else each for each in chosen['watches']
        )
        self.feeds = {name: Feed(name) for name in cameras}
        self.backend = Backend()
        self.clock = ManualClock()
        self.policy = AheadPolicy(AheadSettings(**chosen), self.feeds, self.backend, self.clock)
        self.policy.is_loaded = True
        self.policy.looks = Looks(self.clock, lambda: 0)
        self.now = Moment(100 * S, 100 * S)
        self.sessions = set()

    def wait(self, seconds):
        later = self.now.steady_ns + round(seconds * S)
        self.now = Moment(later, later)
        self.clock.advance(seconds)

    def show(self, scene, camera='front', after_s=2.0):
        """Have a picture come, or one of some brightness, and the timer after it."""
        self.wait(after_s)
        image = scene
        if not isinstance(scene, RawImage):
            image = RawImage('mono8', 8, 8, 8, bytes([scene]) * 64)
        now = self.now.steady_ns
        new = StoredFrame(FrameSource(camera, f'/{camera}'), now, image, now, now)
        self.feeds[camera].newest = new
        self.feeds[camera].buffer.add(new, now)
        self.check()
        return new

    def check(self, **options):
        self.policy.check(self.now.steady_ns, DEFAULTS.system_prompt, **options)

    def choose(self, **fields):
        """Return a request with its frames."""
        request = Ask.Request(question='Eh?', **fields)
        facts = RequestFacts('r', request.session_id, self.now)
        has_turns = request.session_id in self.sessions
        admitted = Admission(self.feeds).choose(
            admit(request, facts, DEFAULTS), now=self.now, has_shown_frames=has_turns
        )
        return self.policy.choose(
            admitted, self.now, has_turns=has_turns, system_prompt=DEFAULTS.system_prompt
        )

    def ask(self, readiness=Readiness.PREFIX, **fields):
        """Ask and have it answered; return the frames that it showed."""
        admitted = self.choose(**fields)
        answer = Answer('r', 'Yes.', FinishReason.STOP, readiness=readiness)
        self.policy.answered(admitted, answer, self.now.steady_ns)
        self.sessions |= {admitted.question.session_id} - {''}
        self.check()
        return admitted.question.frames

    def is_ready(self, frames=None, **fields):
        """Have the backend report that a wish came true."""
        wanted = self.wish.frames if self.wish else ()
        ready = wanted if frames is None else frames
        self.policy.on_report(AheadReport(keys(wanted), keys(ready), **fields))

    @property
    def wish(self):
        return self.backend.wishes[-1] if self.backend.wishes else None


def keys(frames):
    return tuple(map(name_frame, frames))


def test_a_backend_that_is_told_is_one_that_prepares():
    assert isinstance(Backend(), PreparesAhead)


# --- what is wished ------------------------------------------------------------------------------


def test_before_the_first_frame_the_system_text_is_wanted():
    robot = Robot()
    robot.check()
    assert robot.wish.frames == ()
    assert robot.wish.shown_as is None


def test_the_newest_picture_is_wanted_once_and_again_when_the_scene_has_changed():
    robot = Robot()
    first = robot.show(10)
    assert robot.wish.frames == (first,)
    assert robot.wish.shown_as is ShownAs.ALONE
    told = len(robot.backend.wishes)
    for _ in range(5):
        robot.show(12)
    assert len(robot.backend.wishes) == told
    changed = robot.show(90)
    assert robot.wish.frames == (changed,)


def test_a_window_grows_in_the_order_of_its_changes():
    robot = Robot(frames=4)
    shown = [robot.show(scene) for scene in (0, 90, 180)]
    assert robot.wish.frames == tuple(shown)
    assert robot.wish.shown_as is ShownAs.AMONG_OTHERS


def test_encode_offers_frames_and_wishes_nothing():
    robot = Robot(mode='encode')
    first = robot.show(10)
    robot.show(11)
    assert robot.backend.offers == [((first,), ShownAs.ALONE)]
    assert robot.backend.wishes == []


def test_frames_are_offered_once_there_is_a_model_and_again_to_the_next():
    robot = Robot(mode='encode')
    robot.policy.is_loaded = False
    first = robot.show(10)
    assert robot.backend.offers == []
    robot.policy.is_loaded = True
    robot.check()
    robot.policy.on_report(AheadReport(ready=keys((first,)), tokens=9, problem='dead'))
    robot.check()
    assert [frames for frames, _ in robot.backend.offers] == [(first,)]
    robot.policy.lose()
    robot.check()
    assert [frames for frames, _ in robot.backend.offers] == [(first,), (first,)]
    assert robot.policy.report == AheadReport(problem='dead')


def test_of_cameras_beside_the_one_that_is_wanted_the_features_are():
    robot = Robot(watches=('front', 'rear'))
    front, rear = robot.show(10), robot.show(10, 'rear')
    assert robot.wish.frames == (front,)
    assert robot.backend.offers == [((rear,), ShownAs.ALONE)]


def test_the_camera_asked_about_last_is_wanted_until_nobody_asks_for_long():
    robot = Robot(watches=('front', 'rear'), live_s=30.0)
    front, rear = robot.show(10), robot.show(10, 'rear')
    robot.ask(cameras=['rear'])
    assert robot.wish.frames == (rear,)
    robot.wait(31)
    robot.check()
    assert robot.wish.frames == (front,)


def test_cameras_that_are_watched_together_stand_in_one_prompt():
    robot = Robot(watches=(('front', 'rear'),))
    front = robot.show(10)
    assert robot.wish.frames == ()  # a question about both cannot be answered yet
    rear = robot.show(10, 'rear')
    assert robot.wish.frames == (front, rear)
    assert robot.wish.shown_as is ShownAs.ONE_OF_IMAGES
    assert robot.ask(cameras=['front', 'rear']) == (front, rear)
    assert robot.choose(cameras=['rear', 'front']).facts.scene_checked_age_s == -1
    assert robot.choose(cameras=['front']).question.shown_as is None


def test_nothing_is_wanted_while_it_is_paused_and_all_is_after():
    robot = Robot()
    robot.show(10)
    robot.check(is_paused=True)
    assert robot.wish is None
    assert robot.ask() == (robot.feeds['front'].newest,)
    robot.check()
    assert robot.wish.frames == (robot.feeds['front'].newest,)


def test_nothing_is_wanted_any_more_when_it_is_closed():
    robot = Robot()
    robot.show(10)
    robot.policy.close()
    assert robot.backend.wishes[-1] is None
    robot.policy.close()
    assert robot.backend.wishes.count(None) == 1


# --- a hint --------------------------------------------------------------------------------------


def test_a_hint_takes_the_newest_frame_at_once_and_is_urgent_until_the_question_came():
    robot = Robot()
    robot.show(10)
    newest = robot.show(12)
    assert robot.policy.hint((), '', robot.now.steady_ns)
    robot.check()
    assert robot.wish.frames == (newest,)
    assert robot.wish.is_urgent
    assert robot.ask() == (newest,)
    assert not robot.wish.is_urgent


def test_after_a_hint_changes_are_followed_at_once():
    robot = Robot(min_period_s=10.0)
    robot.show(10)
    robot.show(90, after_s=1)
    assert robot.wish.frames[0] is not robot.feeds['front'].newest
    robot.policy.hint((), '', robot.now.steady_ns)
    changed = robot.show(200, after_s=1)
    assert robot.wish.frames == (changed,)


def test_a_hint_of_cameras_that_nobody_watches_together_is_none():
    robot = Robot()
    robot.show(10)
    assert not robot.policy.hint(['rear'], '', robot.now.steady_ns)
    assert not robot.policy.hint(['side'], '', robot.now.steady_ns)
    assert robot.policy.counts.hints == 2


def test_a_hint_may_name_a_conversation_that_is_not_live_any_more():
    robot = Robot(live_s=10.0)
    robot.show(10)
    robot.ask(session_id='chat')
    robot.wait(60)
    newest = robot.show(10)
    robot.policy.hint((), 'chat', robot.now.steady_ns)
    robot.check()
    assert (robot.wish.session_id, robot.wish.frames) == ('chat', (newest,))


def test_a_hint_of_no_conversation_comes_before_one_that_is_live():
    robot = Robot()
    robot.show(10)
    robot.ask(session_id='chat')
    assert robot.wish.session_id == 'chat'
    robot.policy.hint((), '', robot.now.steady_ns)
    robot.check()
    assert robot.wish.session_id == ''
    robot.ask()
    assert robot.wish.session_id == 'chat'


# --- what a question shows -----------------------------------------------------------------------


def test_while_the_scene_is_the_same_a_question_shows_what_is_ready():
    robot = Robot()
    ready = robot.show(10)
    robot.show(11)
    robot.wait(0.5)
    admitted = robot.choose()
    assert admitted.question.frames == (ready,)
    assert admitted.question.shown_as is ShownAs.ALONE
    assert admitted.facts.scene_checked_age_s == pytest.approx(0.5)


def test_a_change_that_nobody_has_looked_at_is_seen_by_the_question():
    robot = Robot(min_period_s=100.0)
    robot.show(10)
    changed = robot.show(90)
    assert robot.wish.frames != (changed,)  # too soon
    assert robot.ask() == (changed,)
    assert robot.wish.frames == (changed,)


def test_five_alternating_pictures_each_reach_their_own_question():
    robot = Robot(min_period_s=0.0)
    for scene in (0, 200, 0, 200, 0):
        shown = robot.show(scene)
        assert robot.ask() == (shown,)


def test_a_question_that_wants_a_newer_frame_gets_one():
    robot = Robot()
    ready = robot.show(10)
    newest = robot.show(11, after_s=5)
    assert robot.ask(max_age_s=10.0) == (ready,)
    assert robot.ask(max_age_s=1.0) == (newest,)
    assert robot.ask() == (newest,)


def test_a_dead_camera_never_answers_from_what_is_ready():
    robot = Robot()
    robot.show(10)
    robot.is_ready()
    robot.wait(5)
    with pytest.raises(NoFreshFrameError, match=r'5\.0 s old'):
        robot.choose()


def test_a_window_is_shown_whole_and_grows_by_the_frame_that_a_question_adds():
    robot = Robot(frames=4, min_period_s=100.0)
    first = robot.show(0)
    changed = robot.show(90)
    admitted = robot.choose()
    assert admitted.question.frames == (first, changed)
    assert admitted.question.shown_as is ShownAs.AMONG_OTHERS
    robot.check()
    assert robot.wish.frames == (first, changed)


UNLIKE = {
    'as_of': {'as_of': Time(sec=106)},
    'images': {'images': [Image(encoding='mono8', width=1, height=1, step=1, data=b'x')]},
    'camera': {'cameras': ['rear']},
    'both': {'cameras': ['front', 'rear']},
    'prompt': {'system_prompt': 'Be a pirate.'},
    'clip': {'last_seconds': 0.5},
}


@pytest.mark.parametrize('frames', [1, 4])
@pytest.mark.parametrize('unlike', UNLIKE)
def test_whatever_else_is_asked_for_goes_its_usual_way(frames, unlike):
    robot = Robot(frames=frames)
    robot.show(10, 'rear')
    for scene in (0, 90, 180):
        robot.show(scene)
        robot.show(10, 'rear', after_s=0)
    fields = UNLIKE[unlike]
    admitted = robot.choose(**fields)
    request = Ask.Request(question='Eh?', **fields)
    usual = Admission(robot.feeds).choose(
        admit(request, RequestFacts('r', '', robot.now), DEFAULTS), now=robot.now
    )
    assert admitted == usual


def test_a_clip_is_answered_from_the_window_where_that_is_all_of_it():
    robot = Robot(frames=4, max_period_s=0.0)
    shown = [robot.show(scene) for scene in (0, 90, 180)]
    assert robot.choose(last_seconds=30.0).question.frames == tuple(shown)
    assert robot.choose(last_seconds=30.0, max_frames=3).question.frames == tuple(shown)
    few = robot.choose(last_seconds=30.0, max_frames=2)
    assert (len(few.question.frames), few.question.shown_as) == (2, None)
    short = robot.choose(last_seconds=3.0)
    assert short.question.frames == tuple(shown[1:])
    assert short.question.shown_as is None


def test_a_clip_of_a_time_that_the_window_has_left_out_goes_its_usual_way():
    robot = Robot(frames=3, min_period_s=0.0)
    shown = [robot.show(100 * (number % 2)) for number in range(4)]
    assert robot.wish.frames == (shown[3],)
    assert len(robot.choose(last_seconds=5.0).question.frames) == 3
    robot.wait(1.5)
    assert robot.choose(last_seconds=3.4).question.frames == (shown[3],)


def test_most_frames_alone_are_a_bound():
    robot = Robot(frames=4)
    shown = [robot.show(scene) for scene in (0, 90, 180)]
    assert robot.choose(max_frames=3).question.frames == tuple(shown)
    assert robot.choose(max_frames=2).question.frames == (shown[2],)


def test_a_question_in_the_midst_of_a_new_start_is_answered_from_what_was_ready():
    robot = Robot(frames=3, max_period_s=0.0)
    robot.policy.kv_slots = 2
    old = [robot.show(scene) for scene in (0, 90, 180)]
    robot.is_ready()
    changed = robot.show(0)
    assert robot.wish.frames == (changed,)
    robot.is_ready(old)
    assert robot.choose().question.frames == (old[0], old[1], changed)
    robot.is_ready()
    assert robot.choose().question.frames == (changed,)


def test_what_was_ready_is_shown_whole_where_the_scene_is_again_what_it_was():
    robot = Robot(frames=3, max_period_s=0.0)
    robot.policy.kv_slots = 2
    old = [robot.show(scene) for scene in (0, 90, 180)]
    robot.is_ready()
    robot.show(0)
    robot.show(181, after_s=0.1)
    assert robot.choose().question.frames == tuple(old)


def test_with_one_cache_what_was_ready_is_overwritten_once_the_new_start_was_wished():
    robot = Robot(frames=3, max_period_s=0.0)
    for scene in (0, 90, 180):
        robot.show(scene)
    robot.is_ready()
    changed = robot.show(0)
    assert robot.choose().question.frames == (changed,)


def test_with_one_cache_a_question_that_fills_the_window_still_shows_what_is_ready():
    robot = Robot(frames=3, max_period_s=0.0, min_period_s=1.0)
    old = [robot.show(scene) for scene in (0, 90, 180)]
    robot.is_ready()
    changed = robot.show(0, after_s=0.5)
    assert robot.ask() == (old[0], old[1], changed)
    assert robot.wish.frames == (changed,)


class Stage:
    """A scene with a sensor's noise, in which one object of a hundredth of it comes and goes."""

    HEIGHT, WIDTH, NOISE = 120, 160, 5.0

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        y, x = np.mgrid[0 : self.HEIGHT, 0 : self.WIDTH]
        self.background = 70 + 60 * np.sin(x / 23.0) * np.cos(y / 17.0)
        self.scene = 0
        self.scenes = {}
        self.corner, self.contrast = None, 0

    def change(self):
        """Put the object elsewhere, or take it away."""
        self.scene += 1
        before = self.corner
        while self.corner == before:
            corner = (self.random.integers(0, 10) * 12, self.random.integers(0, 10) * 16)
            self.corner = None if before is not None and self.random.random() < 0.2 else corner
        self.contrast = self.random.integers(45, 110)

    def picture(self):
        pixels = self.background.copy()
        if self.corner is not None:
            top, left = self.corner
            pixels[top : top + 12, left : left + 16] += self.contrast
        pixels += self.random.normal(0, self.NOISE, pixels.shape)
        data = pixels.clip(0, 255).astype(np.uint8).tobytes()
        return RawImage('mono8', self.WIDTH, self.HEIGHT, self.WIDTH, data)


@pytest.mark.parametrize('frames', [1, 5])
def test_of_a_thousand_changes_none_is_unseen_by_its_question(frames):
    stage = Stage(frames)
    robot = Robot(frames=frames, min_period_s=0.3, live_s=1.0)
    scenes, readiness = {}, []
    for _ in range(500):
        if stage.random.random() < 0.7:
            stage.change()
        for _ in range(stage.random.integers(1, 4)):
            newest = robot.show(stage.picture(), after_s=stage.random.choice([0.05, 0.5]))
            scenes[newest.stamp_ns] = stage.scene
        shown = robot.ask()
        assert scenes[shown[-1].stamp_ns] == stage.scene
        assert [each.stamp_ns for each in shown] == sorted(each.stamp_ns for each in shown)
        readiness.append(shown[-1] is newest)
    # It is for this that frames are made ready: most questions found the scene as it was.
    assert sum(readiness) < 400


# --- conversations -------------------------------------------------------------------------------


def test_while_a_conversation_is_live_its_next_turn_is_wanted():
    robot = Robot(live_s=30.0)
    ready = robot.show(10)
    assert robot.ask(session_id='chat') == (ready,)
    assert (robot.wish.session_id, robot.wish.frames) == ('chat', ())
    robot.show(12)
    assert robot.wish.frames == ()  # it has seen this
    changed = robot.show(90, after_s=0.1)
    assert (robot.wish.session_id, robot.wish.frames) == ('chat', (changed,))
    robot.wait(31)
    robot.show(90)
    assert (robot.wish.session_id, robot.wish.frames) == ('', (changed,))


def test_one_look_serves_the_conversation_and_the_window():
    robot = Robot(live_s=30.0)
    worked = iter(range(0, 10**10, 10**7))
    robot.policy.looks = Looks(robot.clock, lambda: next(worked))
    robot.show(10)
    robot.ask(session_id='chat')
    changed = robot.show(90)
    assert (robot.wish.session_id, robot.wish.frames) == ('chat', (changed,))
    assert robot.policy.looks.taken == 2


def test_a_turn_about_what_was_shown_shows_nothing_new_and_one_that_names_a_camera_does():
    robot = Robot(live_s=30.0)
    robot.show(10)
    robot.ask(session_id='chat')
    changed = robot.show(90)
    assert robot.ask(session_id='chat') == ()
    assert robot.wish.session_id == 'chat'
    assert robot.choose(session_id='chat').question.continues_session
    admitted = robot.choose(session_id='chat', cameras=['front'])
    assert admitted.question.frames == (changed,)
    assert admitted.facts.scene_checked_age_s == pytest.approx(0.0)
    robot.ask(session_id='chat', cameras=['front'])
    assert robot.wish.frames == ()
    robot.show(91)
    assert robot.choose(session_id='chat', cameras=['front']).question.frames == (changed,)


def test_a_question_outside_the_conversation_shows_the_window():
    robot = Robot()
    robot.show(10)
    robot.ask(session_id='chat')
    changed = robot.show(90)
    assert robot.ask() == (changed,)
    assert robot.wish.session_id == 'chat'


def test_a_conversation_that_was_reset_is_not_wanted():
    robot = Robot()
    robot.show(10)
    robot.ask(session_id='chat')
    robot.policy.forget('other')
    robot.check()
    assert robot.wish.session_id == 'chat'
    robot.policy.forget('')
    robot.check()
    assert robot.wish.session_id == ''


def test_a_turn_that_failed_is_no_turn():
    robot = Robot()
    robot.show(10)
    admitted = robot.choose(session_id='chat')
    failed = Answer.failed('r', NoFreshFrameError('gone'), session_id='chat')
    robot.policy.answered(admitted, failed, robot.now.steady_ns)
    robot.check()
    assert robot.wish.session_id == ''
    assert not robot.policy.counts.questions


# --- what the backend says -----------------------------------------------------------------------


def bad(of):
    return BadFrame(of.source, of.stamp_ns, of.received_ns, 'damaged')


def test_frames_that_are_damaged_after_all_go():
    robot = Robot(frames=4)
    shown = [robot.show(scene) for scene in (0, 90, 180)]
    robot.is_ready((), problem='damaged', bad_frames=(bad(shown[1]),))
    robot.check()
    assert robot.wish.frames == (shown[0], shown[2])


def test_a_window_that_is_too_long_becomes_as_long_as_fits():
    robot = Robot(frames=6)
    shown = [robot.show(scene) for scene in (0, 90, 180, 90, 0)]
    robot.is_ready((), problem='too long', fits=3)
    robot.check()
    assert robot.wish.frames == (shown[4],)


def test_what_fits_is_not_judged_by_a_report_of_an_older_wish():
    robot = Robot(frames=6)
    shown = [robot.show(scene) for scene in (0, 90)]
    old = keys(robot.wish.frames)
    shown.append(robot.show(180))
    robot.policy.on_report(AheadReport(old, (), problem='too long', fits=1))
    robot.check()
    assert robot.wish.frames == tuple(shown)


def test_what_cannot_be_made_ready_for_a_reason_nobody_knows_is_left_behind():
    robot = Robot(frames=6)
    for scene in (0, 90):
        robot.show(scene)
    robot.is_ready((), problem='the chip fell over')
    changed = robot.show(180)
    assert robot.wish.frames == (changed,)


def test_a_model_that_takes_few_images_has_a_short_window():
    robot = Robot(frames=6)
    robot.policy.fit(2)
    for scene in (0, 90, 180):
        robot.show(scene)
        assert len(robot.wish.frames) <= 2


def test_a_clock_that_jumps_leaves_nothing():
    robot = Robot(frames=3)
    robot.show(0)
    robot.policy.clear()
    robot.feeds['front'].newest = None
    robot.check()
    assert robot.wish.frames == ()


def test_questions_are_counted_by_what_was_ready():
    robot = Robot()
    robot.show(10)
    for readiness in (Readiness.PREFIX, Readiness.NONE, Readiness.PREFIX):
        robot.ask(readiness)
    assert robot.policy.counts.questions == {Readiness.PREFIX: 2, Readiness.NONE: 1}


def test_a_look_that_takes_long_is_not_taken_often():
    clock, worked = ManualClock(), iter([0, 10**7, 10**7, 10**12])
    looks = Looks(clock, lambda: next(worked))
    shown = Robot().show(10)
    assert looks.is_rested('front')
    looks.at(shown)
    assert not looks.is_rested('front')
    assert looks.is_rested('rear')
    clock.advance(0.2)
    assert looks.is_rested('front')
    looks.at(shown)  # known
    assert looks.is_rested('front')
    looks.at(replace(shown, stamp_ns=1))
    clock.advance(2.0)
    assert looks.is_rested('front')
    assert looks.taken == 2
