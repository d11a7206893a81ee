"""From a request to its frames."""

from __future__ import annotations

import math
import re
from array import array
from dataclasses import replace

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from builtin_interfaces.msg import Time  # noqa: E402
from edge_vlm_ros.srv import Ask  # noqa: E402
from sensor_msgs.msg import CompressedImage as CompressedImageMsg  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from edge_vlm_ros.core import (  # noqa: E402
    BadRequestError,
    CompressedImage,
    ErrorCode,
    FrameSource,
    NoFreshFrameError,
    Priority,
    StoredFrame,
    TooManyFramesError,
)
from edge_vlm_ros.nodes.admission import Admission, admit  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.health import CameraHealth, FrameCounts  # noqa: E402
from edge_vlm_ros.nodes.node_time import Moment  # noqa: E402
from edge_vlm_ros.nodes.request_parameters import RequestDefaults  # noqa: E402
from edge_vlm_ros.vision import FrameBuffer  # noqa: E402

S = 10**9
DEFAULTS = RequestDefaults(
    max_frames=8,
    max_age_s=2.0,
    frame_wait_s=1.0,
    timeout_s=10.0,
    max_tokens=50,
    system_prompt='Be kind.',
    max_repeats=32,
)


class Feed:
    """A camera with frames at given seconds; `newest` may be ahead of the buffer."""

    def __init__(self, name, seconds, newest=None):
        self.buffer = FrameBuffer(max_frames=1000, max_seconds=1000, max_bytes=10**9)
        source = FrameSource(name, f'/{name}/image_raw', f'{name}_optical_frame')
        self.frames = [
            StoredFrame(source, round(s * S), CompressedImage('jpeg', b'x')) for s in seconds
        ]
        for frame in self.frames:
            self.buffer.add(frame, frame.stamp_ns)
        self.newest = self.frames[-1] if self.frames else None
        if newest is not None:
            self.newest = StoredFrame(source, round(newest * S), CompressedImage('jpeg', b'x'))
        self.name = name

        self.facts = {}

    def health(self):
        return CameraHealth(name=self.name, topic=f'/{self.name}/image_raw', **self.facts)


FRONT = Feed('front', [90 + i / 10 for i in range(100)])
REAR = Feed('rear', [95.0, 99.5])


def at(seconds):
    """Return a moment of a day on which both clocks show the same."""
    return Moment(round(seconds * S), round(seconds * S))


def choose(fields, feeds=(FRONT, REAR), *, now=None, **options):
    """Return what a request comes to; its question has the frames."""
    admission = Admission({feed.name: feed for feed in feeds})
    request = Ask.Request(question='Eh?', **fields)
    admitted = admit(request, RequestFacts('r', asked=at(100)), DEFAULTS)
    return admission.choose(admitted, now=now or at(100), **options)


def frames_of(admitted):
    return admitted.question.frames


def seconds(admitted):
    return [frame.stamp_ns / S for frame in frames_of(admitted)]


def test_nothing_said_means_the_newest_frame_of_the_first_camera():
    admitted = choose({})
    assert [(f.source.camera, f.stamp_ns) for f in frames_of(admitted)] == [('front', 99.9 * S)]
    assert not admitted.facts.window_truncated


def test_cameras_come_in_the_order_asked_for_and_each_once():
    admitted = choose({'cameras': ['rear', 'front', 'rear']})
    assert [frame.source.camera for frame in frames_of(admitted)] == ['rear', 'front']


def test_an_unknown_camera_lists_the_known():
    with pytest.raises(BadRequestError, match='front, rear') as caught:
        choose({'cameras': ['side']})
    assert caught.value.code is ErrorCode.UNKNOWN_CAMERA


def test_a_clip_has_as_many_frames_as_are_asked_for_else_as_the_node_says():
    assert len(frames_of(choose({'last_seconds': 4.0}))) == 8
    admitted = choose({'last_seconds': 4.0, 'max_frames': 3})
    assert seconds(admitted) == pytest.approx([96.0, 97.9, 99.9], abs=0.1)
    assert len(frames_of(choose({'last_seconds': 4.0}, max_images=4))) == 4


def test_a_clip_of_a_slow_model_has_as_many_frames_as_it_bears_unless_more_are_asked_for():
    assert len(frames_of(choose({'last_seconds': 4.0}, usual_frames=2))) == 2
    assert len(frames_of(choose({'last_seconds': 4.0}, usual_frames=20))) == 8
    asked = choose({'last_seconds': 4.0, 'max_frames': 6}, usual_frames=2)
    assert len(frames_of(asked)) == 6


def test_a_clip_of_more_frames_than_the_model_takes_is_sampled_down_and_says_so():
    admitted = choose({'last_seconds': 4.0, 'max_frames': 40}, max_images=4)
    # Twice as many: a family may show two frames as one image, the model process knows.
    assert len(frames_of(admitted)) == 8
    assert admitted.facts.note == 'max_frames is 40, the model takes 4 images'
    assert choose({'last_seconds': 4.0, 'max_frames': 8}, max_images=4).facts.note == ''
    both = {'last_seconds': 4.0, 'max_frames': 40, 'cameras': ['front', 'rear']}
    cameras = [frame.source.camera for frame in frames_of(choose(both, max_images=4))]
    assert (cameras.count('front'), cameras.count('rear')) == (4, 1)


def test_what_cannot_be_sampled_down_is_refused_with_both_numbers():
    with pytest.raises(TooManyFramesError, match='2 cameras, the model takes 1 images'):
        choose({'cameras': ['front', 'rear']}, max_images=1)
    with pytest.raises(TooManyFramesError, match='3 frames, the model takes 2 images'):
        choose({'images': [Image(encoding='mono8', width=1, height=1)] * 3}, max_images=2)


ABSURD = [
    ('timeout_s', 1e30, '1000000'),
    ('timeout_s', -1.0, '1000000'),
    ('timeout_s', math.nan, '1000000'),
    ('timeout_s', math.inf, '1000000'),
    ('max_age_s', 1e30, '1000000000'),
    ('max_age_s', -1.0, '1000000000'),
    ('max_age_s', math.nan, '1000000000'),
    ('last_seconds', 1e30, '86400'),
    ('last_seconds', -0.5, '86400'),
    ('last_seconds', math.nan, '86400'),
    ('max_frames', 2**32 - 1, '256'),
    ('max_tokens', 2**32 - 1, '1000000'),
    ('top_k', 2**32 - 1, '1000000'),
    ('temperature', 1e30, '10'),
    ('top_p', 1e30, '1'),
    ('priority', 7, '-1, 0, 1'),
    ('as_of', Time(sec=-5), 'sec from 0'),
    ('as_of', Time(sec=5, nanosec=2**32 - 1), '1000000000'),
]


@pytest.mark.parametrize(
    ('name', 'value', 'limit'), ABSURD, ids=[f'{row[0]}-{n}' for n, row in enumerate(ABSURD)]
)
@pytest.mark.parametrize('images', [0, 1], ids=['of a camera', 'of an image'])
def test_absurd_values_are_refused_with_the_value_and_the_limit_used_or_not(
    name, value, limit, images
):
    shown = [Image(encoding='mono8', width=1, height=1)] * images
    with pytest.raises(BadRequestError) as caught:
        choose({name: value, 'images': shown})
    message = caught.value.message
    assert name in message
    assert limit in message
    number = value.nanosec if isinstance(value, Time) and value.nanosec else value
    number = -5 if isinstance(value, Time) and not value.nanosec else number
    assert re.search(rf'not .*{str(number).split("e", maxsplit=1)[0].removesuffix(".0")}', message)


def test_a_priority_is_taken_over():
    levels = [
        admit_only(priority=number).question.priority
        for number in (
            Ask.Request.PRIORITY_BACKGROUND,
            Ask.Request.PRIORITY_NORMAL,
            Ask.Request.PRIORITY_URGENT,
        )
    ]
    assert levels == list(Priority)


def admit_only(**fields):
    request = Ask.Request(question='Eh?', **fields)
    return admit(request, RequestFacts('r', asked=Moment(steady_ns=5)), DEFAULTS)


def test_a_clip_of_several_cameras_shares_the_frames_between_them():
    admitted = choose({'last_seconds': 4.0, 'max_frames': 4, 'cameras': ['front', 'rear']})
    assert [f.source.camera for f in frames_of(admitted)].count('front') == 2


def test_a_clip_ends_with_the_newest_frame_even_where_few_are_kept():
    thin = Feed('thin', [90, 92, 94, 96, 98], newest=99.8)
    admitted = choose({'last_seconds': 8.0, 'max_frames': 3}, [thin])
    assert len(frames_of(admitted)) == 3
    assert seconds(admitted)[-1] == 99.8


def test_as_of_looks_at_that_time_and_counts_age_from_it():
    assert seconds(choose({'as_of': Time(sec=93)})) == [93.0]
    with pytest.raises(NoFreshFrameError) as caught:
        choose({'as_of': Time(sec=97, nanosec=500_000_000), 'cameras': ['rear'], 'max_age_s': 1.0})
    assert caught.value.code is ErrorCode.STALE_FRAME


def test_an_old_frame_is_refused_with_its_age_and_the_limit():
    old = Feed('old', [90.0])
    with pytest.raises(NoFreshFrameError, match=r'10\.0 s old, the limit is 2\.0 s') as caught:
        choose({}, [old])
    assert caught.value.code is ErrorCode.STALE_FRAME
    assert seconds(choose({'max_age_s': 11.0}, [old])) == [90.0]


class Live(Feed):
    """A camera whose frames arrive at given seconds, with stamps of whatever clock."""

    def __init__(self, arrivals, offset_s, latency_s=0.0):
        super().__init__('live', [])
        source = FrameSource('live', '/live/image_raw')
        for arrival in arrivals:
            self.newest = StoredFrame(
                source,
                round((arrival + offset_s) * S),
                CompressedImage('jpeg', b'x'),
                received_ns=round(arrival * S),
                taken_ns=round((arrival - latency_s) * S),
            )
            self.buffer.add(self.newest, round(arrival * S))
        self.facts = {
            'clock_offset_s': offset_s,
            'counts': FrameCounts(received=len(arrivals)),
            'fps': 10.0,
            'silence_s': 0.1,
        }


TENTHS = [90 + i / 10 for i in range(100)]


def test_no_clock_makes_a_dead_camera_fresh():
    """Stamps 20 s ahead, dead for 8 s; and the same where the node's ROS time was set back."""
    dead = Live([s - 8 for s in TENTHS], 20.0)
    for now in (at(99.9), Moment(round(91 * S), round(99.9 * S))):
        with pytest.raises(NoFreshFrameError, match=r'8\.0 s old, the limit is 2\.0 s') as caught:
            choose({}, [dead], now=now)
        assert caught.value.code is ErrorCode.STALE_FRAME


@pytest.mark.parametrize('offset_s', [-120.0, -3 * 3600.0, -89.0, 20.0, 1e9])
def test_a_live_camera_with_another_clock_is_answered_from_what_arrived(offset_s):
    live = Live(TENTHS, offset_s)
    admitted = choose({'last_seconds': 4.0, 'max_frames': 5}, [live])
    assert [s - offset_s for s in seconds(admitted)] == pytest.approx([96, 97, 98, 99, 99.9], 0.01)
    assert not admitted.facts.window_truncated
    assert choose({'last_seconds': 11.0}, [live]).facts.window_truncated


def test_frames_that_are_late_or_of_a_clock_somewhat_behind_are_old_and_both_are_named():
    late = Live(TENTHS, -8.0, latency_s=8.0)
    with pytest.raises(NoFreshFrameError, match=r'8\.1 s old.*late, or the clock') as caught:
        choose({}, [late])
    assert caught.value.code is ErrorCode.STALE_FRAME
    # Whoever takes that age gets the clip that arrived.
    assert len(frames_of(choose({'last_seconds': 4.0, 'max_age_s': 9.0}, [late]))) == 8


def test_a_time_that_another_clock_never_showed_names_the_offset():
    with pytest.raises(NoFreshFrameError, match=r'10800\.0 s behind the node') as caught:
        choose({'as_of': Time(sec=95)}, [Live(TENTHS, -10_800.0)])
    assert caught.value.code is ErrorCode.STALE_FRAME


def test_under_simulated_time_ages_and_windows_are_of_the_simulation():
    """The bag runs three times as fast as the day: arrivals are counted in its time."""
    bag = Live(TENTHS, 0.0)
    now = Moment(100 * S, 500 * S, is_simulated=True)
    admitted = choose({'last_seconds': 2.0, 'max_frames': 3}, [bag], now=now)
    assert seconds(admitted) == pytest.approx([98.0, 99.0, 99.9], abs=0.11)


def test_the_frames_of_a_paused_bag_grow_old_and_those_of_a_camera_that_goes_on_do_not():
    bag = Live(TENTHS, 0.0)
    paused = Moment(100 * S, 130 * S, is_simulated=True, stood_ns=30 * S)
    bag.facts |= {'silence_s': 30.0, 'stood_s': 30.0}
    with pytest.raises(NoFreshFrameError, match='simulated time has stood still') as caught:
        choose({}, [bag], now=paused)
    assert caught.value.code is ErrorCode.STALE_FRAME
    assert len(frames_of(choose({'max_age_s': 31.0}, [bag], now=paused))) == 1
    going = Live([*TENTHS, 129.9], 0.0)
    going.newest = replace(going.newest, taken_ns=100 * S)
    assert len(frames_of(choose({}, [going], now=paused))) == 1


def test_a_camera_of_which_nothing_can_be_decoded_says_why():
    bad = Feed('bad', [])
    bad.facts = {'bad_reason': 'the JPEG file is truncated', 'counts': FrameCounts(received=3)}
    with pytest.raises(NoFreshFrameError, match="camera 'bad': the JPEG") as caught:
        choose({}, [bad])
    assert caught.value.code is ErrorCode.BAD_IMAGE
    old = Feed('old', [90.0])
    old.facts = {**bad.facts, 'silence_s': 0.1}
    with pytest.raises(NoFreshFrameError, match='truncated') as caught:
        choose({}, [old])
    assert caught.value.code is ErrorCode.BAD_IMAGE
    assert seconds(choose({'max_age_s': 11.0}, [old])) == [90.0], 'the next older one'


def test_no_frame_names_topic_and_likely_cause():
    with pytest.raises(NoFreshFrameError, match=r'/none/image_raw: nobody publishes') as caught:
        choose({}, [Feed('none', [])])
    assert caught.value.code is ErrorCode.NO_FRAME


def test_after_a_wait_age_and_clip_are_counted_from_then():
    with pytest.raises(NoFreshFrameError):
        choose({}, now=at(103))
    later = Feed('later', [99.0, 101.0, 102.0, 103.0])
    assert seconds(choose({'last_seconds': 2.0}, [later], now=at(103)))[-1] == 103.0


def test_a_request_waits_for_a_frame_within_its_timeout_and_not_for_the_past():
    def wait_s(defaults=DEFAULTS, **fields):
        request = Ask.Request(question='Eh?', **fields)
        admitted = admit(request, RequestFacts('r', '', at(100)), defaults)
        return max(0.0, admitted.frame_wait_ns / S - 100)

    assert wait_s() == 1.0
    assert wait_s(timeout_s=0.5) == 0.5
    assert wait_s(replace(DEFAULTS, timeout_s=0.0)) == 1.0
    assert wait_s(replace(DEFAULTS, frame_wait_s=0.0)) == 0.0
    assert wait_s(as_of=Time(sec=99)) == 0.0
    assert wait_s(as_of=Time(sec=101)) == 1.0


def test_frames_chosen_later_are_added_to_the_question():
    admitted = admit(Ask.Request(question='Eh?'), RequestFacts('r', 's', Moment(0, 5)), DEFAULTS)
    assert (frames_of(admitted), admitted.question.continues_session) == ((), False)
    shown = admitted.with_frames((FRONT.newest,)).question
    assert (shown.frames, shown.continues_session) == ((FRONT.newest,), False)
    assert admitted.with_frames((), continues_session=True).question.continues_session
    assert shown.asked_ns == 5


def test_images_in_the_request_come_before_cameras():
    image = Image(encoding='rgb8', width=1, height=1, step=3, data=array('B', b'rgb'))
    admitted = choose({'images': [image], 'compressed_images': [CompressedImageMsg(format='png')]})
    assert [frame.source.camera for frame in frames_of(admitted)] == ['', '']
    assert frames_of(admitted)[0].image.data == image.data
    with pytest.raises(TooManyFramesError):
        choose({'images': [image, image]}, max_images=1)


def test_a_later_turn_is_about_the_same_frames_unless_it_says_otherwise():
    admitted = choose({}, has_shown_frames=True)
    assert (frames_of(admitted), admitted.question.continues_session) == ((), True)
    named = choose({'cameras': ['front']}, has_shown_frames=True)
    assert not named.question.continues_session
    assert len(frames_of(named)) == 1
    assert len(frames_of(choose({'last_seconds': 1.0}, has_shown_frames=True))) > 1
    image = Image(encoding='rgb8', width=1, height=1, step=3, data=array('B', b'rgb'))
    assert len(frames_of(choose({'images': [image]}, has_shown_frames=True))) == 1


@pytest.mark.parametrize('field', ['last_seconds', 'max_age_s'])
@pytest.mark.parametrize('value', [-1.0, float('nan'), float('inf')])
def test_numbers_that_make_no_sense_are_refused(field, value):
    with pytest.raises(BadRequestError, match=field):
        choose({field: value})


def test_a_question_takes_the_defaults_where_a_request_says_nothing():
    facts = RequestFacts('r', 's', Moment(0, 5))
    question = admit(Ask.Request(question='Eh?'), facts, DEFAULTS).question
    assert (question.system_prompt, question.sampling.max_tokens) == ('Be kind.', 50)
    assert (question.asked_ns, question.deadline_ns) == (5, 5 + 10 * S)
    request = Ask.Request(question='Eh?', timeout_s=1.0, max_tokens=3, choices=['a'])
    assert admit(Ask.Request(question='Eh?', yes_no=True), facts, DEFAULTS).question.choices == (
        'yes',
        'no',
    )
    told = Ask.Request(question='Eh?', stop=['\n'], repetition_penalty=1.25)
    told = admit(told, facts, DEFAULTS).question
    assert (told.stop, told.sampling.repetition_penalty) == (('\n',), 1.25)
    assert question.sampling.repetition_penalty == 1.0
    question = admit(request, facts, DEFAULTS).question
    assert (question.deadline_ns, question.sampling.max_tokens) == (5 + S, 3)
    assert question.choices == ('a',)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'system_prompt': 'x' * 70_000}, 'system_prompt has 70000'),
        ({'choices': ['yes'] * 300}, 'choices has 300 entries'),
        ({'choices': ['yes', '']}, r'choices\[1\] is blank'),
        ({'choices': ['yes', 'Yes']}, r'choices\[0\] and choices\[1\] are the same'),
        ({'yes_no': True, 'choices': ['a']}, 'yes_no stands for'),
        ({'yes_no': True, 'stop': ['a']}, 'stop is for free text'),
        ({'stop': ['x'] * 17}, 'stop has 17 entries, the limit is 16'),
        ({'stop': ['x' * 257]}, r'stop\[0\] has 257 bytes'),
        ({'stop': ['']}, r'stop\[0\] is empty'),
        ({'repetition_penalty': 2.5}, 'repetition_penalty is from 0.1 to 2, not 2.5'),
        ({'repetition_penalty': -1.0}, 'repetition_penalty is from 0.1 to 2, not -1.0'),
        ({'cameras': ['front'] * 65}, 'cameras has 65 entries'),
        ({'images': [Image()] * 257}, 'more than 256 images'),
    ],
)
def test_a_field_above_its_limit_is_refused_before_any_frame(fields, says):
    request = Ask.Request(question='What?', **fields)
    with pytest.raises(BadRequestError, match=says):
        admit(request, RequestFacts('r', 's'), DEFAULTS)
    with pytest.raises(BadRequestError, match='session_id has 300'):
        admit(Ask.Request(question='What?'), RequestFacts('r', 's' * 300), DEFAULTS)
