"""What a model's files say of themselves, for `edge-vlm inspect`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReportTable:
    """One table of a report.

    Attributes:
        title: What its rows are: 'nets', 'shape groups of a layer', ...
        columns: Their headings.
        rows: Cells as text, one for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ModelReport:
    """One model, read from its files.

    Attributes:
        facts: Name and value, in the order they are shown: family, contract, limits, memory.
        tables: What there are several of.
    """

    facts: tuple[tuple[str, str], ...]
    tables: tuple[ReportTable, ...] = ()
