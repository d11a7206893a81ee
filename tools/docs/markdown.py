"""Markdown out of plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_OUTSIDE_CODE = re.compile(r'`[^`]*`|[<*|]')


def escape(text: str) -> str:
    """Escape what Markdown would read as markup, outside of `code`; a table cell's `|`, too."""

    def replace(match: re.Match[str]) -> str:
        found = match[0]
        if found.startswith('`'):
            return found.replace('|', r'\|')
        return '&lt;' if found == '<' else '\\' + found

    return _OUTSIDE_CODE.sub(replace, text)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; its cells are Markdown already.

    Raises:
        ValueError: A row has another number of cells than the header.
    """
    lines = [_line(header), '|' + '---|' * len(header)]
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f'{len(row)} cells under {len(header)} headings: {row}')
        lines.append(_line(row))
    return '\n'.join(lines)


def _line(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'
