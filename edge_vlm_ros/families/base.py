"""What every model family knows: its pixels, its words, its positions.

A family is made in two steps. `FamilySettings` is what the model's files and the user's options
say, checked before the engine loads, for minutes perhaps. `FamilySettings.bound_by` then makes the
family, once, within what the engine takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edge_vlm_ros.core import EngineLimits, Frame, PromptPart, ShownAs, VisionInputs
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.text import Tokenizer


class FamilySettings(Protocol):
    """What one model's files and the user's options say; immutable, and all of it checked."""

    def bound_by(self, limits: EngineLimits) -> ModelFamily:
        """Make the family, within what an engine takes.

        Raises:
            ModelFileError: The engine's vision tower is not this model's.
            BadRequestError: The user asked for more than the engine takes.
        """
        ...


class ModelFamily(Protocol):
    """Preprocessing, prompt form and stop rule of one model, for one engine."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        ...

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    @property
    def grounding(self) -> Grounding | None:
        """How its models name places in a frame; None = they were not trained to."""
        ...

    @property
    def frames_per_input(self) -> int:
        """How many neighbouring frames of one camera's clip make one `VisionInputs`: 1 or more.

        A clip is cut into so many frames each, the last input having the rest.
        """
        ...

    @property
    def shares_detail(self) -> bool:
        """Whether images of several cameras are shown otherwise than moments of one's clip.

        Then they are ONE_OF_IMAGES and made by `preprocess_one_of`; else they are AMONG_OTHERS.
        """
        ...

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize, tile and normalise one frame as the model was trained.

        Args:
            frame: Left unchanged.
            shown_as: ALONE, or AMONG_OTHERS: families spend fewer pixels on each of several, as
                their models were trained.

        Raises:
            BadImageError: A side of 0.
        """
        ...

    def preprocess_one_of(self, frame: Frame, images: int) -> VisionInputs:
        """Make one input of a frame that is ONE_OF_IMAGES.

        Args:
            frame: Left unchanged.
            images: How many share the detail of one.

        Raises:
            BadImageError: A side of 0.
        """
        ...

    def preprocess_clip(self, frames: Sequence[Frame]) -> VisionInputs:
        """Make one input of neighbouring frames of a clip.

        Args:
            frames: Of one camera, oldest first; `frames_per_input` of them, or fewer at the clip's
                end. Left unchanged.

        Raises:
            BadImageError: A side of 0.
        """
        ...

    def render_prefix(self, images: Sequence[VisionInputs], system_prompt: str) -> PromptPart:
        """Render all that precedes the first question: system prompt, then frames, oldest first.

        A prompt grows at its end: rendered with one more image that is shown AMONG_OTHERS, it
        begins with the tokens and positions of the prompt without it, from the first image on. So
        KV rows of the shorter one serve the longer one. A VIDEO grows by whole inputs of
        `frames_per_input` frames, and all but the token that closes it is kept. Images ALONE and
        ONE_OF_IMAGES need not grow: one by itself may be worded in another way than the first of
        several.

        Args:
            images: What was made of the frames; image i of the prompt is the i-th.
            system_prompt: '' = the model's own default.
        """
        ...

    def render_suffix(
        self, question: str, position: int, *, follows_images: bool = False
    ) -> PromptPart:
        """Render the question and the opening of the answer.

        Special tokens inside the question are treated as text.

        Args:
            question: The user's words.
            position: `next_position` of what precedes.
            follows_images: Whether this turn's images stand directly before it; some templates
                write words after an image otherwise than words that come first.
        """
        ...

    def encode_answer(self, text: str) -> Sequence[int]:
        """Return the tokens of a text as the model would say it: after what opens the answer.

        Args:
            text: Without blanks around it; template tokens in it are text.
        """
        ...

    def render_next_turn(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        """Render what closes an answer and opens the user's next turn, with new frames if any.

        The answer's own tokens, without the stop token, precede; `render_suffix` follows.

        Args:
            images: New frames of this turn; often none.
            first_image: Index of the first of them among the conversation's images.
            position: `next_position` of what precedes.
        """
        ...
