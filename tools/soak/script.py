"""What the scripted model answers, and where it fails; which brightness a frame has.

Each frame is of one brightness that follows from its camera and stamp, and the model says the mean
of every image that it was shown: so an answer about another frame than it names is found out.
"""

from __future__ import annotations

import re
import zlib
from typing import Final

from support.long_answer import long_words

LONG_WORDS: Final = 150
SCRIPT: Final = f"""
answers:
  - {{question: choose, answer: 'Yes.'}}
  - {{question: long, answer: '{long_words(LONG_WORDS)}'}}
  - {{answer: 'means: {{means}}'}}
latency: {{decode_s: 0.002, encode_tile_s: 0.002}}
faults:
  - {{at: decode, kind: segfault, question: crash in decode, token: 3}}
  - {{at: prefill, kind: exit, question: crash in prefill}}
  - {{at: next_token, kind: hang, question: hang, token: 3}}
  - {{at: prefill, kind: error, question: error in prefill}}
  - {{at: decode, kind: error, question: error in decode, token: 3}}
"""

_MEAN: Final = re.compile(r'-?\d+\.\d\d')


def brightness(camera: str, stamp_ns: int) -> int:
    """Return the brightness, 10 to 245, of a camera's frame; '' = an image of a request."""
    return 10 + zlib.crc32(f'{camera} {stamp_ns}'.encode()) % 236


def means_in(text: str) -> list[float]:
    """Read the means that an answer tells."""
    return [float(found) for found in _MEAN.findall(text)]
