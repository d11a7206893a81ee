"""What a page may have and send: every bound in one place. What is above is refused or dropped."""

from __future__ import annotations

from typing import Final

_KIB: Final = 1 << 10
_MIB: Final = 1 << 20

MAX_BODY_BYTES: Final = 64 * _KIB
"""Of a request's body; the page sends none."""
MAX_MESSAGE_BYTES: Final = 64 * _KIB
"""Of one message on the socket; a longer one closes it (code 1009)."""
MAX_PAGES: Final = 16
"""Sockets at once; one more is refused with status 503."""
MAX_STREAMS: Final = 16
"""Moving images at once, likewise."""
MAX_OPEN: Final = 4
"""Questions of one page that have no answer yet."""
MAX_QUESTION_CHARS: Final = 4000
MAX_NAME_CHARS: Final = 64
"""Of the page's names for a question and for a conversation."""
MAX_CHOICES: Final = 32
MAX_CHOICE_CHARS: Final = 200
MAX_LAST_SECONDS: Final = 600.0
MAX_FRAMES: Final = 64
MAX_TIMEOUT_S: Final = 3600.0
MAX_WAITING: Final = 64
"""Messages that wait for a slow browser; above it, text that streams is dropped, since the answer
brings all of it, and then whatever is oldest."""
HEARTBEAT_S: Final = 20.0
"""A page that has not answered a ping for so long is gone."""
STALLED_S: Final = 20.0
"""A moving image that a browser does not take for so long is ended."""
MAX_FPS: Final = 15.0
"""Pictures a second of a moving image; those between are left out."""

STORE_BYTES: Final = 20 * _MIB
"""Pictures kept of one camera while somebody looks, to show the frames of an answer."""
STORE_S: Final = 60.0
"""Oldest of them, by stamp."""
MAX_JPEG_BYTES: Final = 4 * _MIB
"""Largest picture that is kept or shown."""
CASE_ANSWERS: Final = 20
"""Answers whose pictures can still be had, the last ones."""
CASE_BYTES: Final = 40 * _MIB
"""And all of their pictures together."""
MIN_TOKEN_CHARS: Final = 16
