"""Every field of a request has a bound, and so have their sums."""

import pytest

from edge_vlm_ros.core import (
    BadRequestError,
    EdgeVlmError,
    ErrorCode,
    Question,
    TooManyFramesError,
    check_camera_names,
    check_images,
    check_question,
)

MIB = 1 << 20


def test_what_people_ask_is_far_below_the_limits():
    choices = tuple(f'answer {number}' for number in range(256))
    check_question(Question('ä' * 30_000, 'x' * 256, (), 'y' * 256, 'be kind', choices=choices))
    check_camera_names(['front'] * 64)
    check_images([25 * MIB] * 20)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        ({'system_prompt': 'x' * (20 * MIB)}, r'system_prompt has 20971520 .* limit is 65536'),
        ({'system_prompt': 'ä' * 40_000}, r'system_prompt has 80000 bytes .* limit is 65536'),
        ({'choices': ('yes',) * 1_000_000}, 'choices has 1000000 entries, the limit is 256'),
        ({'choices': ('a', 'x' * 1025)}, r'choices\[1\] has 1025 bytes .* limit is 1024'),
        ({'choices': ('x' * 1024,) * 200}, 'together, the limit is 131072'),
        ({'text': 'x' * 60_000, 'system_prompt': 'x' * 60_000, 'choices': ('x' * 1000,) * 20},
         'have 140000 bytes together, the limit is 131072'),
        ({'request_id': 'x' * 257}, r'request_id has 257 bytes .* limit is 256'),
        ({'session_id': 'ä' * 129}, r'session_id has 258 bytes .* limit is 256'),
        ({'max_latency_s': -0.1}, 'max_latency_s is from 0 to 1000000, not -0.1'),
        ({'max_latency_s': 1e9}, 'max_latency_s is from 0 to 1000000, not 1000000000'),
        ({'max_latency_s': float('nan')}, 'max_latency_s is from 0 to 1000000, not nan'),
    ],
    ids=['prompt', 'utf8', 'choices', 'choice', 'choices_sum', 'sum', 'request_id', 'session_id',
         'hasty', 'patient', 'no_number'],
)  # fmt: skip
def test_a_field_above_its_limit_is_refused_with_value_and_limit(fields, says):
    question = Question(**{'text': 'What?', **fields})
    with pytest.raises(BadRequestError, match=says) as refused:
        check_question(question)
    assert refused.value.code is ErrorCode.BAD_REQUEST
    assert len(refused.value.message) < 200


@pytest.mark.parametrize('names', [['x'] * 65, ['x' * 257]])
def test_too_many_cameras_and_long_names_are_refused(names):
    with pytest.raises(BadRequestError, match=r'cameras has .* the limit is'):
        check_camera_names(names)


@pytest.mark.parametrize(
    ('sizes', 'kind', 'says'),
    [
        ([128 * MIB + 1], BadRequestError, 'image 0 has 134217729 bytes, the limit is 134217728'),
        ([100 * MIB] * 6, BadRequestError, '6 images have 629145600 bytes, the limit of all'),
        ([1] * 257, TooManyFramesError, 'more than 256 images'),
    ],
)
def test_large_and_many_images_are_refused(sizes, kind, says):
    with pytest.raises(EdgeVlmError, match=says) as refused:
        check_images(sizes)
    assert type(refused.value) is kind
