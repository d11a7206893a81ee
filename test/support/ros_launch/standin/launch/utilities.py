"""Small functions of the real package that tests call."""

from __future__ import annotations

from collections.abc import Sequence

from launch import LaunchContext
from launch.substitutions import Substitution, TextSubstitution


def perform_substitutions(context: LaunchContext, substitutions: Sequence[Substitution]) -> str:
    """Return the texts of some substitutions, joined."""
    return ''.join(substitution.perform(context) for substitution in substitutions)


def normalize_to_list_of_substitutions(value: str | Substitution) -> list[Substitution]:
    """Return substitutions for a text or a substitution.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(value, Substitution):
        return [value]
    if not isinstance(value, str):
        raise TypeError(f'a text or a substitution is needed, not {value!r}')
    return [TextSubstitution(text=value)]
