"""Values that are known when a description is carried out."""

from __future__ import annotations

from launch import LaunchContext


class Substitution:
    """A text that is made at launch."""

    def perform(self, context: LaunchContext) -> str:
        """Return the text."""
        raise NotImplementedError


class TextSubstitution(Substitution):
    """A text as it is."""

    def __init__(self, *, text: str) -> None:
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        """Return the text."""
        return self.text


class LaunchConfiguration(Substitution):
    """The value of an argument."""

    def __init__(self, variable_name: str) -> None:
        self.variable_name = variable_name

    def perform(self, context: LaunchContext) -> str:
        """Return the value.

        Raises:
            KeyError: Nothing of that name was declared or set; the real one has an error for it.
        """
        return context.launch_configurations[self.variable_name]
