"""Types of arguments that argparse has not."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def number(convert: Callable[[str], Any], low: float, what: str) -> Callable[[str], Any]:
    """Return an argparse type: a number of at least `low` (above it for a float)."""

    def parse(text: str) -> Any:
        value = convert(text)
        if not (value >= low if convert is int else low < value < float('inf')):
            raise argparse.ArgumentTypeError(f'{what}, not {text}')
        return value

    parse.__name__ = convert.__name__
    return parse


def named(text: str) -> tuple[str, str]:
    """Return the two parts of NAME=VALUE."""
    name, equals, value = text.partition('=')
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f'NAME=VALUE, not {text!r}')
    return name, value
