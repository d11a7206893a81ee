"""Messages to our words and back."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace

import pytest

pytestmark = pytest.mark.ros
pytest.importorskip('rclpy')
pytest.importorskip('edge_vlm_ros.msg')

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from edge_vlm_ros import msg  # noqa: E402
from edge_vlm_ros.core import (  # noqa: E402
    Answer,
    AnswerChunk,
    BadRequestError,
    CancelledError,
    CompressedImage,
    DeadlineError,
    ErrorCode,
    FinishReason,
    FrameRef,
    FrameSource,
    RawImage,
    StoredFrame,
    Timings,
)
from edge_vlm_ros.nodes import conversions  # noqa: E402
from edge_vlm_ros.nodes.conversions import RequestFacts  # noqa: E402
from edge_vlm_ros.nodes.node_time import Moment  # noqa: E402


@pytest.mark.parametrize('message', [msg.Answer, msg.AnswerChunk])
def test_codes_are_the_constants_of_the_messages(message):
    names = {'FINISH_' + reason.name: reason.value for reason in FinishReason}
    names |= {'ERROR_' + code.name: code.value for code in ErrorCode}
    # AnswerChunk has a field of the same beginning as some constants.
    found = {n: getattr(message, n) for n in dir(message) if n.startswith(('FINISH_', 'ERROR_'))}
    assert found == names


@given(st.integers(0, 2**31 * 10**9 - 1))
def test_a_stamp_comes_back_to_the_nanosecond(stamp_ns):
    assert conversions.time_from_ros(conversions.time_to_ros(stamp_ns)) == stamp_ns


def test_pixels_are_shared_not_copied():
    from sensor_msgs.msg import CompressedImage as CompressedImageMsg
    from sensor_msgs.msg import Image

    raw = Image(encoding='mono16', width=2, height=1, step=4, is_bigendian=1)
    raw.data = array('B', b'1234')
    image = conversions.image_from_ros(raw)
    assert image == RawImage('mono16', 2, 1, 4, raw.data, is_bigendian=True)
    assert image.data is raw.data
    jpeg = CompressedImageMsg(format='jpeg', data=array('B', b'12'))
    assert conversions.image_from_ros(jpeg) == CompressedImage('jpeg', jpeg.data)


SOURCE = FrameSource('front', '/front/image_raw', 'front_optical_frame')
FRAMES = tuple(
    StoredFrame(SOURCE, stamp_ns, CompressedImage('jpeg', b'')) for stamp_ns in (10**9, 3 * 10**9)
)
FACTS = RequestFacts('r', asked=Moment(ros_ns=4 * 10**9), window_truncated=True)


def answer(**fields):
    refs = tuple(FrameRef(frame.source, frame.stamp_ns, 640, 480) for frame in FRAMES)
    return Answer('r', 'Yes.', FinishReason.STOP, frames=refs, **fields)


def test_a_frame_that_came_after_the_question_is_new_and_its_age_counts_from_its_stamp():
    facts = replace(FACTS, asked=Moment(ros_ns=int(2.75 * 10**9)), frame_wait_s=0.3)
    stats = conversions.answer_to_ros(
        answer(timings=Timings(time_to_first_token_s=0.5, total_s=1.0)), facts
    ).stats
    assert stats.frame_wait_s == pytest.approx(0.3)
    assert (stats.newest_frame_age_s, stats.newest_frame_age_at_first_token_s) == (0.0, 0.25)


def test_an_answer_is_stamped_with_its_newest_frame():
    timings = Timings(decode_s=1.0, time_to_first_token_s=0.5, total_s=1.6, answer_tokens=3)
    message = conversions.answer_to_ros(answer(timings=timings, choice='Yes.'), FACTS)
    assert conversions.time_from_ros(message.header.stamp) == 3 * 10**9
    assert message.header.frame_id == 'front_optical_frame'
    assert [frame.age_s for frame in message.frames] == [3.0, 1.0]
    assert [frame.camera for frame in message.frames] == ['front', 'front']
    assert (message.choice, message.choice_valid) == ('Yes.', True)
    assert math.isnan(message.choice_probability), 'not known'
    stats = message.stats
    assert (stats.newest_frame_age_s, stats.newest_frame_age_at_first_token_s) == (1.0, 1.5)
    assert (stats.tokens_per_second, stats.window_truncated) == (2.0, True)


def test_a_choice_has_its_probability():
    message = conversions.answer_to_ros(answer(choice='Yes.', choice_probability=0.75), FACTS)
    assert message.choice_probability == 0.75


def test_yes_no_stands_for_two_choices():
    from edge_vlm_ros.srv import Ask

    assert conversions.choices_from_ros(Ask.Request()) == ()
    assert conversions.choices_from_ros(Ask.Request(choices=['a', 'b'])) == ('a', 'b')
    assert conversions.choices_from_ros(Ask.Request(yes_no=True)) == ('yes', 'no')
    with pytest.raises(BadRequestError, match=r'yes_no stands for .* not 1 texts'):
        conversions.choices_from_ros(Ask.Request(yes_no=True, choices=['a']))


def test_a_chunk_tells_its_frame_before_the_end_and_its_reason_at_the_end():
    first = conversions.chunk_to_ros(AnswerChunk('r', 0, 'Ye'), FACTS, FRAMES)
    assert (first.done, first.finish_reason, first.delta) == (False, 0, 'Ye')
    assert first.header.frame_id == 'front_optical_frame'
    last = conversions.chunk_to_ros(AnswerChunk('r', 1, 's.', answer()), FACTS)
    assert (last.done, last.finish_reason, last.sequence) == (True, 1, 1)
    assert (last.error_code, last.message) == (0, '')


def test_a_final_chunk_has_the_code_and_the_sentence_of_its_answer():
    failed = Answer.failed('r', DeadlineError('the 2 s for this question were over'), text='Ye')
    chunk = conversions.chunk_to_ros(AnswerChunk('r', 1, '', failed), FACTS)
    whole = conversions.answer_to_ros(failed, FACTS)
    assert (chunk.finish_reason, chunk.error_code) == (chunk.FINISH_DEADLINE, chunk.ERROR_DEADLINE)
    assert chunk.message == whole.message == 'the 2 s for this question were over'
    assert conversions.chunk_to_ros(AnswerChunk('r', 0, 'Ye'), FACTS).message == ''


def test_an_answer_without_tokens_and_frames_has_zeros():
    facts = RequestFacts('r')
    error = CancelledError('taken back')
    message = conversions.answer_to_ros(Answer.failed('r', error), facts)
    assert (message.finish_reason, message.error_code) == (5, 302)
    assert (message.text, message.message) == ('', 'taken back')
    assert message.header.frame_id == ''
    assert message.stats == msg.AnswerStats()


def test_zeros_in_a_request_mean_the_default():
    from edge_vlm_ros.srv import Ask

    options = conversions.sampling_from_ros(Ask.Request(), 77, 5)
    assert (options.max_tokens, options.top_p, options.temperature) == (77, 1.0, 0.0)
    assert options.max_repeats == 5
    warm = [conversions.sampling_from_ros(Ask.Request(temperature=1.0), 0, 32) for _ in range(3)]
    assert len({options.seed for options in warm}) == 3
    assert conversions.sampling_from_ros(Ask.Request(temperature=1.0, seed=5), 0, 32).seed == 5
    with pytest.raises(BadRequestError):
        conversions.sampling_from_ros(Ask.Request(top_p=1.5), 0, 32)


def test_the_range_of_16_bit_images_goes_with_the_pixels():
    from sensor_msgs.msg import CompressedImage as CompressedImageMsg
    from sensor_msgs.msg import Image

    for message in (Image(encoding='16UC1'), CompressedImageMsg(format='png')):
        assert conversions.image_from_ros(message).range16 == (0, 0)
        assert conversions.image_from_ros(message, (20_000, 24_000)).range16 == (20_000, 24_000)


def test_an_age_is_the_larger_of_stamp_and_arrival_and_of_a_foreign_clock_the_arrival_alone():
    """Stamps 20 s ahead, a dead camera: what arrived 8 s ago is 8 s old."""
    ahead = FrameRef(SOURCE, 24 * 10**9, 640, 480, age_s=8.0, taken_ns=10**9 // 2)
    facts = RequestFacts('r', asked=Moment(ros_ns=4 * 10**9))
    assert conversions.frame_ref_to_ros(ahead, facts).age_s == 8.0
    late = replace(ahead, taken_ns=0, stamp_ns=10**9, age_s=0.5)
    assert conversions.frame_ref_to_ros(late, facts).age_s == 3.0
    timings = Timings(time_to_first_token_s=0.5, total_s=1.0)
    stats = conversions.answer_to_ros(
        Answer('r', 'Yes.', FinishReason.STOP, frames=(ahead, late), timings=timings), facts
    ).stats
    assert (stats.newest_frame_age_s, stats.newest_frame_age_at_first_token_s) == (3.0, 3.5)
