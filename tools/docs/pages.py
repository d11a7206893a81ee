"""The pages with generated parts, and what fills each part.

A page is Markdown written by hand, with marked places:

    <!-- generated: messages -->
    ...replaced by `make docs`...
    <!-- end: messages -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.docs import interfaces, parameters

_PART = re.compile(r'<!-- generated: (\w+) -->\n.*?<!-- end: (\w+) -->\n', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of `doc/`.

    Attributes:
        path: Relative to the top folder.
        parts: Makes the text of each marked place, by its name; takes the top folder.
        needs_ros: True: `parts` imports rclpy and the built interfaces.
    """

    path: str
    parts: Callable[[Path], Mapping[str, str]]
    needs_ros: bool

    def render(self, root: Path) -> str:
        """Return the page as it should be.

        Args:
            root: The top folder of the tree.

        Raises:
            ValueError: The page's marked places are not those that `parts` fills.
        """
        return fill((root / self.path).read_text(encoding='utf-8'), self.parts(root))


def fill(text: str, parts: Mapping[str, str]) -> str:
    """Replace the content of every marked place.

    Raises:
        ValueError: A place is not closed by its own name, or `text` has not exactly the places
            that `parts` names.
    """
    found = []

    def replace(match: re.Match[str]) -> str:
        name, end = match.groups()
        if name != end or name not in parts:
            raise ValueError(f'place {name!r}, closed as {end!r}; known are {sorted(parts)}')
        found.append(name)
        return f'<!-- generated: {name} -->\n\n{parts[name].strip()}\n\n<!-- end: {name} -->\n'

    filled = _PART.sub(replace, text)
    if sorted(found) != sorted(parts):
        raise ValueError(f'the page has the places {found}, its parts are {sorted(parts)}')
    return filled


PAGES = (
    Page('doc/interfaces.md', interfaces.parts, needs_ros=False),
    Page('doc/parameters.md', parameters.parts, needs_ros=True),
)
