"""Rows of our tables that other installed packages bring, found by their entry points.

An entry point is a line of a package's metadata, here `name = module:row` below the name of a
group. It is seen by every Python process in whose path the package lies, so the model process
knows the same chips and families as the node. Source: packaging.python.org, entry points
specification.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from edge_vlm_ros.core.errors import PackageError

Row = TypeVar('Row')


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """An entry point that gives no row.

    Attributes:
        name: Of the row.
        package: Which brings it, with its version.
        problem: What is wrong with it.
    """

    name: str
    package: str
    problem: str

    def __str__(self) -> str:
        return f'{self.name!r} of package {self.package}: {self.problem}'


@dataclass(frozen=True, slots=True)
class LoadedRows(Generic[Row]):
    """All rows that others bring to a table.

    Attributes:
        rows: Those that can be used.
        broken: The others.
    """

    rows: tuple[Row, ...]
    broken: tuple[BrokenRow, ...]


class InstalledRows(Generic[Row]):
    """What other packages add to one table; looked up again each time, nothing is kept.

    Args:
        group: Of the entry points.
        kind: What their values are; has a `name`.
        taken: Names that are this package's own: nobody can bring those.
    """

    def __init__(self, group: str, kind: type[Row], taken: Iterable[str]) -> None:
        self._group = group
        self._kind = kind
        self._taken = frozenset(taken)

    def names(self) -> tuple[str, ...]:
        """Name what others bring, sorted, without loading it."""
        return tuple(sorted({point.name for point in self._points()} - self._taken))

    def find(self, name: str) -> Row | None:
        """Load the row of a name; None = nobody brings one.

        Raises:
            PackageError: The package that does is broken, or several bring it.
        """
        points = [point for point in self._points() if point.name == name]
        if not points:
            return None
        found = self._load(points)
        if isinstance(found, BrokenRow):
            raise PackageError(f'{self._group}: {found}')
        return found

    def load_all(self) -> LoadedRows[Row]:
        """Load every row; what is broken spoils no other."""
        points: dict[str, list[EntryPoint]] = {}
        for point in self._points():
            points.setdefault(point.name, []).append(point)
        found = [self._load(points[name]) for name in sorted(points)]
        rows = tuple(row for row in found if not isinstance(row, BrokenRow))
        return LoadedRows(rows, tuple(row for row in found if isinstance(row, BrokenRow)))

    def _points(self) -> Iterable[EntryPoint]:
        return entry_points(group=self._group)

    def _load(self, points: list[EntryPoint]) -> Row | BrokenRow:
        name, package = points[0].name, ' and '.join(map(_package_of, points))
        if len(points) > 1:
            return BrokenRow(name, package, 'one of them is enough')
        if name in self._taken:
            return BrokenRow(name, package, 'edge_vlm_ros has one of this name: take another')
        try:
            row = points[0].load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 (code of others: whatever it is)
            problem = ' '.join(f'{type(error).__name__}: {error}'.split())
            return BrokenRow(name, package, f'{points[0].value} cannot be loaded: {problem}')
        if not isinstance(row, self._kind):
            found, wanted = type(row).__name__, self._kind.__name__
            return BrokenRow(name, package, f'{points[0].value} is no {wanted}, but a {found}')
        own_name = getattr(row, 'name', None)
        if own_name != name:
            return BrokenRow(name, package, f'{points[0].value} calls itself {own_name!r}')
        return row


def _package_of(point: EntryPoint) -> str:
    found = point.dist
    return f'{found.name} {found.version}' if found is not None else '(unknown)'
