"""Questions that have a name: what is offered where nobody has set others."""

from __future__ import annotations

from typing import Final

PRESETS: Final = {
    'scene': 'Describe what you see.',
    'path': 'Is the way ahead clear?',
    'nearest': 'Which object is closest?',
    'count': 'How many objects are there?',
    'motion': 'What is moving?',
}
"""By name; the first is the default."""
