"""Parameters whose type is said."""

from __future__ import annotations

from launch.substitutions import Substitution

from launch import LaunchContext


class ParameterValue:
    """A substitution, read as a value of one type.

    Args:
        value: The text.
        value_type: str, float, int or bool.
    """

    def __init__(self, value: Substitution, *, value_type: type) -> None:
        assert value_type in {str, float, int, bool}, value_type
        self._value, self._type = value, value_type

    def evaluate(self, context: LaunchContext) -> object:
        """Return the value.

        Raises:
            ValueError: The text is no such value.
        """
        text = self._value.perform(context)
        return text == 'true' if self._type is bool else self._type(text)
