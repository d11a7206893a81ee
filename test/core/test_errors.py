"""Errors keep their words and their number, also across processes."""

from __future__ import annotations

import pickle

import pytest

from edge_vlm_ros.core import (
    BadImageError,
    BadRequestError,
    BusyError,
    EdgeVlmError,
    ErrorCode,
    ModelFileError,
    NoFreshFrameError,
)
from edge_vlm_ros.core.errors import MAX_MESSAGE_CHARS


@pytest.mark.parametrize('kind', [BadImageError, BusyError, ModelFileError, NoFreshFrameError])
def test_an_error_survives_the_way_to_another_process(kind: type[EdgeVlmError]) -> None:
    error = kind('5 of 4')
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.code, str(copy)) == ('5 of 4', kind.default_code, '5 of 4')


def test_a_code_may_be_sharper_than_the_class() -> None:
    error = NoFreshFrameError('2.1 s old, the limit is 1 s', ErrorCode.STALE_FRAME)
    assert pickle.loads(pickle.dumps(error)).code is ErrorCode.STALE_FRAME


def test_a_bad_image_is_the_callers_to_mend() -> None:
    assert issubclass(BadImageError, BadRequestError)


def test_a_message_is_short_whatever_it_quotes() -> None:
    value = 'x' * (20 << 20)
    error = BadRequestError(f'no camera {value!r}; there are: front')
    for text in (error.message, str(error)):
        assert len(text) <= MAX_MESSAGE_CHARS
        assert text.startswith("no camera 'xxx")
        assert text.endswith("xxx'; there are: front")
    crossed = pickle.loads(pickle.dumps(error))
    assert crossed.message == error.message


def test_a_message_of_the_usual_length_is_left_alone() -> None:
    text = 'y' * MAX_MESSAGE_CHARS
    assert BadRequestError(text).message == text


def test_a_message_can_be_sent_whatever_the_name_of_a_file() -> None:
    name = b'caf\xe9 \xff.axmodel'.decode('utf-8', 'surrogateescape')
    error = ModelFileError(f'{name}: no such file (色)')
    assert error.message.encode('utf-8')
    assert error.message == 'caf\\udce9 \\udcff.axmodel: no such file (色)'
