"""What the doctor finds, and what a missing thing takes away."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class State(Enum):
    """How one link of the chain is.

    MISSING links break the cpu chip with the demo model; ABSENT ones only take something away.
    """

    OK = 'ok'
    MISSING = 'MISSING'
    WARNING = 'warning'
    ABSENT = 'absent'


@dataclass(frozen=True, slots=True)
class Finding:
    """One link of the chain.

    Attributes:
        topic: The heading it stands under.
        name: What was looked for.
        state: How it is.
        found: Version, path or reason; one line.
        remedy: What to do about it; '' where nothing has to be done.
    """

    topic: str
    name: str
    state: State
    found: str
    remedy: str = ''

    def fields(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), 'state': self.state.value}


def as_text(findings: list[Finding]) -> str:
    """Lay findings out under their headings, one line each and a line for what to do."""
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    topic = ''
    for finding in findings:
        if finding.topic != topic:
            topic = finding.topic
            lines += ['', topic] if lines else [topic]
        lines.append(f'  {finding.state.value:<8} {finding.name:<{width}}  {finding.found}')
        if finding.remedy:
            lines.append(f'  {"":<8} {"":<{width}}  -> {finding.remedy}')
    return '\n'.join(lines)
