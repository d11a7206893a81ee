"""What setup.py uses of setuptools, which ships no types."""

from collections.abc import Callable, Sequence
from typing import Any

class Distribution:
    data_files: list[tuple[str, list[str]]] | None
    has_data: Callable[[], bool]

class Extension:
    def __init__(self, name: str, sources: Sequence[str]) -> None: ...

def setup(**attributes: Any) -> Distribution: ...
