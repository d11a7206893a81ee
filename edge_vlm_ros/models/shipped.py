"""Where the package's own models lie."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
SHIPPED_FOLDERS = {
    ('cpu', 'demo'): _PACKAGE / 'demo' / 'model',
    ('scripted', 'scripted'): _PACKAGE / 'engines' / 'scripted' / 'model',
}
"""(chip, name) -> folder."""
