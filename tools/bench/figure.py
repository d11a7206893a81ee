"""One measured figure, its baseline and its goal."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    '<': operator.lt,
    '<=': operator.le,
    '>': operator.gt,
    '>=': operator.ge,
    '==': operator.eq,
}
_GOAL = re.compile(r'(value|ratio) (<=|>=|==|<|>) ([0-9.]+)')


class NotHereError(Exception):
    """This machine has not what the figures are measured on; the message says what."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the benchmark.

    Attributes:
        name: Unique; words joined by '_'.
        value: What was measured; the median of several where it is a time.
        unit: Of value and baseline: 'ms', 'tokens/s', 'MB', ...
        baseline: The same measured beside it on something plain; None = there is nothing to
            measure it against.
        against: What the baseline is, for people.
        ratio: value / baseline as the median of the pairs, or baseline / value where the figure
            is a gain ('times faster'); None without a baseline.
        goal: 'ratio <= 1.2', 'value < 50', ...; '' = none was set.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    against: str = ''
    ratio: float | None = None
    goal: str = ''

    def __post_init__(self) -> None:
        if self.goal and not _GOAL.fullmatch(self.goal):
            raise ValueError(f'{self.name}: not a goal: {self.goal!r}')
        if self.goal.startswith('ratio') and self.ratio is None:
            raise ValueError(f'{self.name}: a goal for the ratio, but no ratio')

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        match = _GOAL.fullmatch(self.goal)
        if match is None:
            return None
        what, sign, limit = match.groups()
        measured = self.value if what == 'value' else self.ratio
        assert measured is not None
        return bool(_COMPARISONS[sign](measured, float(limit)))

    def fields(self) -> dict[str, Any]:
        """Return the fields of build/bench.json."""
        return {
            'name': self.name,
            'value': _rounded(self.value),
            'unit': self.unit,
            'baseline': _rounded(self.baseline),
            'ratio': _rounded(self.ratio),
            'goal': self.goal,
            'met': self.met,
            'against': self.against,
        }


def _rounded(number: float | None) -> float | None:
    """Keep four significant digits; the rest is noise."""
    return None if number is None else float(f'{number:.4g}')


def as_table(figures: list[Figure]) -> str:
    """Lay figures out in columns, for a terminal."""
    rows = [
        ('FIGURE', 'VALUE', 'BASELINE', 'RATIO', 'GOAL', 'MET', 'BASELINE IS'),
        *map(_row, figures),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ('  '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return '\n'.join(line.rstrip() for line in lines)


def _row(figure: Figure) -> tuple[str, ...]:
    met = {None: '', True: 'yes', False: 'NO'}[figure.met]
    return (
        figure.name,
        f'{figure.value:.4g} {figure.unit}',
        '' if figure.baseline is None else f'{figure.baseline:.4g} {figure.unit}',
        '' if figure.ratio is None else f'{figure.ratio:.3g}',
        figure.goal,
        met,
        figure.against,
    )
