"""What no engine may give out."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vlm_ros.core import CrossAttended, DeviceError, Spliced
from edge_vlm_ros.engines.bf16 import to_bf16
from edge_vlm_ros.engines.checks import check_features

GOOD = np.linspace(-3e38, 3e38, 12, dtype=np.float32).reshape(3, 4)
BAD = np.where(np.arange(12).reshape(3, 4) == 11, np.float32(np.nan), GOOD)


@pytest.mark.parametrize('make', [np.asarray, to_bf16, lambda v: (v / 1e36).astype(np.float16)])
def test_features_that_are_no_numbers_are_refused_in_every_type(make):
    check_features(Spliced(make(GOOD)))
    with pytest.raises(DeviceError, match='3 rows with values that are no numbers'):
        check_features(Spliced(make(BAD)))


def test_padding_that_nobody_attends_to_may_be_anything():
    check_features(CrossAttended(BAD, rows_used=2))
    with pytest.raises(DeviceError):
        check_features(CrossAttended(BAD, rows_used=3))


def test_no_rows_are_no_wrong_ones():
    check_features(Spliced(GOOD[:0]))
