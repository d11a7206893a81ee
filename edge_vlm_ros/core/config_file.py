"""A model folder's JSON files, read with care: what is wrong is named with file, key and value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vlm_ros.core.bounded_files import read_json_file
from edge_vlm_ros.core.errors import ModelFileError

MOST = 1 << 31
"""Above every count that a model has; sums and products of larger ones would take all memory."""
_MOST_IDS = 10_000
_LARGEST = 1e6


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One JSON object of a model folder, or an object inside one.

    Attributes:
        path: The file, for messages.
        values: The object.
        inside: Keys that lead to it within the file, each followed by a full stop.
    """

    path: Path
    values: Mapping[str, Any]
    inside: str = ''

    @staticmethod
    def read(path: Path, *, may_be_missing: bool = False) -> ConfigFile:
        """Read a file.

        Args:
            path: Where it is.
            may_be_missing: Whether a file that is not there counts as an empty object.

        Raises:
            ModelFileError: It is missing, damaged, or no JSON object.
        """
        if may_be_missing and not path.exists():
            return ConfigFile(path, {})
        values = read_json_file(path)
        if not isinstance(values, dict):
            raise ModelFileError(f'{path} holds {_shorten(values)}, not a JSON object')
        return ConfigFile(path, values)

    def section(self, key: str) -> ConfigFile:
        """Return the object at a key; an empty one where the key is missing.

        Raises:
            ModelFileError: Something else stands there.
        """
        found = self.values.get(key) or {}
        if not isinstance(found, dict):
            raise self.error(key, 'an object')
        return ConfigFile(self.path, found, f'{self.inside}{key}.')

    def count(self, key: str, default: int | None = None) -> int:
        """Return the whole number above 0 at a key; of a list, its first (all must be equal).

        Args:
            key: Where it stands.
            default: What a missing key or null means; None = an error.

        Raises:
            ModelFileError: Missing, or not such a number.
        """
        found = self.values.get(key)
        if isinstance(found, list) and found and found.count(found[0]) == len(found):
            found = found[0]
        if found is None and default is not None:
            return default
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found <= MOST:
            raise self.error(key, f'a whole number above 0, at most {MOST}')
        return found

    def find_count(self, key: str) -> int | None:
        """Return the whole number above 0 at a key; None where the key is missing or null.

        Raises:
            ModelFileError: Something else stands there.
        """
        return None if self.values.get(key) is None else self.count(key)

    def fraction(self, key: str, default: float) -> float:
        """Return the number above 0 and at most 1 at a key.

        Raises:
            ModelFileError: Something else stands there.
        """
        found = self.find_fraction(key)
        return default if found is None else found

    def find_fraction(self, key: str) -> float | None:
        """Return the number above 0 and at most 1 at a key; None where it is missing or null.

        Raises:
            ModelFileError: Something else stands there.
        """
        found = self.values.get(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found <= 1:
            raise self.error(key, 'a number above 0 and at most 1')
        return float(found)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return the true or false at a key.

        Raises:
            ModelFileError: Something else stands there.
        """
        found = self.values.get(key)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise self.error(key, 'true or false')
        return found

    def text(self, key: str) -> str | None:
        """Return the text at a key; None where the key is missing or null.

        Raises:
            ModelFileError: Something else stands there.
        """
        found = self.values.get(key)
        if found is not None and not isinstance(found, str):
            raise self.error(key, 'a text')
        return found

    def three(
        self, key: str, default: tuple[float, float, float] | None = None
    ) -> tuple[float, float, float]:
        """Return the three numbers at a key.

        Args:
            key: Where they stand.
            default: What a missing key or null means; None = an error.

        Raises:
            ModelFileError: Missing, or something else.
        """
        found = self.values.get(key)
        if found is None and default is not None:
            return default
        match found:
            case [int() | float() as red, int() | float() as green, int() | float() as blue]:
                if max(map(abs, (red, green, blue))) > _LARGEST:
                    raise self.error(key, f'three numbers of at most {_LARGEST:g}')
                return float(red), float(green), float(blue)
            case _:
                raise self.error(key, 'three numbers')

    def ids(self, key: str) -> list[int]:
        """Return the token id or ids at a key; none where the key is missing or null.

        Raises:
            ModelFileError: Something else stands there.
        """
        return self._whole_numbers(key, 'a token id or a list of them')

    def numbers(self, key: str) -> list[int]:
        """Return the whole numbers from 0 on at a key; none where it is missing or null.

        Raises:
            ModelFileError: Something else stands there.
        """
        return self._whole_numbers(key, 'a list of whole numbers')

    def _whole_numbers(self, key: str, expected: str) -> list[int]:
        found = self.values.get(key)
        listed = [] if found is None else found if isinstance(found, list) else [found]
        if len(listed) > _MOST_IDS or not all(
            type(number) is int and 0 <= number <= MOST for number in listed
        ):
            raise self.error(key, expected)
        return listed

    def error(self, key: str, expected: str) -> ModelFileError:
        """Return the error that says what stands at a key and what should."""
        place = f'{self.path}: {self.inside}{key}'
        if self.values.get(key) is None:
            return ModelFileError(f'{place} is missing; expected {expected}')
        return ModelFileError(f'{place} is {_shorten(self.values[key])}, expected {expected}')


def _shorten(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f'{text[:57]}...'
