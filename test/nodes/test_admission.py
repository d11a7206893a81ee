"""From a request to its frames."""

from __future__ import annotations

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
    StoredFrame,
    TooManyFramesError,
)
from edge_vlm_ros.nodes.admission import Admission, admit  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.health import CameraHealth  # noqa: E402
from edge_vlm_ros.nodes.parameters import RequestDefaults  # noqa: E402
from edge_vlm_ros.vision import FrameBuffer  # noqa: E402

S = 10**9
NOW = 100 * S
DEFAULTS = RequestDefaults(
    max_frames=8,
    max_age_s=2.0,
    frame_wait_s=1.0,
    timeout_s=10.0,
    max_tokens=50,
    system_prompt='Be kind.',
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
            self.buffer.add(frame)
        self.newest = self.frames[-1] if self.frames else None
        if newest is not None:
            self.newest = StoredFrame(source, round(newest * S), CompressedImage('jpeg', b'x'))
        self.name = name

    def health(self):
        return CameraHealth(name=self.name, topic=f'/{self.name}/image_raw')


FRONT = Feed('front', [90 + i / 10 for i in range(100)])
REAR = Feed('rear', [95.0, 99.5])


def choose(fields, feeds=(FRONT, REAR), *, now_ns=NOW, **options):
    """Return what a request comes to; its question has the frames."""
    admission = Admission({feed.name: feed for feed in feeds})
    request = Ask.Request(question='Eh?', **fields)
    admitted = admit(request, RequestFacts('r', asked_ros_ns=NOW), DEFAULTS, asked_ns=5)
    return admission.choose(admitted, now_ns=now_ns, **options)


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


def test_more_frames_than_the_model_takes_are_refused_with_both_numbers():
    with pytest.raises(TooManyFramesError, match='6 frames, the model takes 4'):
        choose({'last_seconds': 4.0, 'max_frames': 6}, max_images=4)
    with pytest.raises(TooManyFramesError):
        choose({'cameras': ['front', 'rear']}, max_images=1)


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


def test_a_frame_of_another_clock_names_the_likely_cause():
    with pytest.raises(NoFreshFrameError, match='use_sim_time'):
        choose({}, [Feed('old', [1.0])], now_ns=10**18)


def test_no_frame_names_topic_and_likely_cause():
    with pytest.raises(NoFreshFrameError, match=r'/none/image_raw: nobody publishes') as caught:
        choose({}, [Feed('none', [])])
    assert caught.value.code is ErrorCode.NO_FRAME


def test_after_a_wait_age_and_clip_are_counted_from_then():
    with pytest.raises(NoFreshFrameError):
        choose({}, now_ns=NOW + 3 * S)
    later = Feed('later', [99.0, 101.0, 102.0, 103.0])
    assert seconds(choose({'last_seconds': 2.0}, [later], now_ns=NOW + 3 * S))[-1] == 103.0


def test_a_request_waits_for_a_frame_within_its_timeout_and_not_for_the_past():
    def wait_s(defaults=DEFAULTS, **fields):
        request, facts = Ask.Request(question='Eh?', **fields), RequestFacts('r', '', NOW)
        admitted = admit(request, facts, defaults, asked_ns=5 * S)
        return max(0.0, admitted.frame_wait_ns / S - 5)

    assert wait_s() == 1.0
    assert wait_s(timeout_s=0.5) == 0.5
    assert wait_s(replace(DEFAULTS, timeout_s=0.0)) == 1.0
    assert wait_s(replace(DEFAULTS, frame_wait_s=0.0)) == 0.0
    assert wait_s(as_of=Time(sec=99)) == 0.0
    assert wait_s(as_of=Time(sec=101)) == 1.0


def test_frames_chosen_later_are_added_to_the_question():
    admitted = admit(Ask.Request(question='Eh?'), RequestFacts('r', 's'), DEFAULTS, asked_ns=5)
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
    facts = RequestFacts('r', session_id='s')
    question = admit(Ask.Request(question='Eh?'), facts, DEFAULTS, asked_ns=5).question
    assert (question.system_prompt, question.sampling.max_tokens) == ('Be kind.', 50)
    assert (question.asked_ns, question.deadline_ns) == (5, 5 + 10 * S)
    request = Ask.Request(question='Eh?', timeout_s=1.0, max_tokens=3, choices=['a'])
    question = admit(request, facts, DEFAULTS, asked_ns=5).question
    assert (question.deadline_ns, question.sampling.max_tokens) == (5 + S, 3)
    assert question.choices == ('a',)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'system_prompt': 'x' * 70_000}, 'system_prompt has 70000'),
        ({'choices': ['yes'] * 300}, 'choices has 300 entries'),
        ({'cameras': ['front'] * 65}, 'cameras has 65 entries'),
        ({'images': [Image()] * 257}, 'more than 256 images'),
    ],
)
def test_a_field_above_its_limit_is_refused_before_any_frame(fields, says):
    request = Ask.Request(question='What?', **fields)
    with pytest.raises(BadRequestError, match=says):
        admit(request, RequestFacts('r', 's'), DEFAULTS, 0)
    with pytest.raises(BadRequestError, match='session_id has 300'):
        admit(Ask.Request(question='What?'), RequestFacts('r', 's' * 300), DEFAULTS, 0)
