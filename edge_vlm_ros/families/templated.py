"""What all families with a chat template share: their words, when no image is in the way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from edge_vlm_ros.core import Frame, PromptPart, ShownAs, VisionInputs
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.text import ChatTemplate, Piece, Tokenizer, encode_pieces


class TemplatedFamily(ABC):
    """Question and next turn of a family, given how it prepares and renders images.

    Args:
        tokenizer: The model's.
        template: Its form of a conversation.
        stop_tokens: Ids that end an answer.
        system_text: Used unless the question brings its own; '' = none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        stop_tokens: frozenset[int],
        system_text: str = '',
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._stop_tokens = stop_tokens
        self._system_text = system_text

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer."""
        return self._tokenizer

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end an answer."""
        return self._stop_tokens

    @property
    def grounding(self) -> Grounding | None:
        """How its models name places in a frame: here they do not."""
        return None

    @property
    def frames_per_input(self) -> int:
        """How many frames of a clip make one input: here each frame is an image of its own."""
        return 1

    @abstractmethod
    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Make one input of one frame; see `ModelFamily.preprocess`."""

    @property
    def shares_detail(self) -> bool:
        """Whether images of several cameras are shown in a way of their own: here as in a clip."""
        return False

    def preprocess_one_of(self, frame: Frame, images: int) -> VisionInputs:
        """Make one input of one of several images: `preprocess` of it, among several.

        Raises:
            BadImageError: A side of 0.
        """
        del images
        return self.preprocess(frame, ShownAs.AMONG_OTHERS)

    def preprocess_clip(self, frames: Sequence[Frame]) -> VisionInputs:
        """Make one input of one frame of a clip: `preprocess` of it, among several.

        Raises:
            BadImageError: A side of 0.
        """
        (frame,) = frames
        return self.preprocess(frame, ShownAs.AMONG_OTHERS)

    def render_prefix(self, images: Sequence[VisionInputs], system_prompt: str) -> PromptPart:
        """Render all that precedes the first question: system text, then frames, oldest first.

        Args:
            images: What was made of the frames; image i of the prompt is the i-th.
            system_prompt: '' = the model's own default.
        """
        opening = self._template.opening(system_prompt or self._system_text)
        return self._render(opening, images, first_image=0, position=0)

    def render_suffix(
        self, question: str, position: int, *, follows_images: bool = False
    ) -> PromptPart:
        """Render the question and the opening of the answer.

        Blanks around the question are left out: the line break before it stays a token of its own
        wherever a prompt is cut.

        Args:
            question: The user's words; template tokens in them are text.
            position: `next_position` of what precedes.
            follows_images: Whether this turn's images stand directly before it.
        """
        words = self._words(question.strip(), follows_images=follows_images)
        pieces = (words, *self._template.closing())
        return self._render(pieces, (), first_image=0, position=position)

    def encode_answer(self, text: str) -> Sequence[int]:
        """Return the tokens of a text as the model would say it: after what opens the answer.

        Where the opening and the first letters make one token together, the text's own tokens
        follow the opening: the prompt is there already.

        Args:
            text: Without blanks around it; template tokens in it are text.
        """
        pieces = self._template.closing()
        opening = encode_pieces(self._tokenizer, pieces)
        whole = encode_pieces(self._tokenizer, (*pieces, text))
        if whole[: len(opening)] == opening:
            return whole[len(opening) :]
        return self._tokenizer.encode(text)

    def render_next_turn(
        self, images: Sequence[VisionInputs], first_image: int, position: int
    ) -> PromptPart:
        """Render what closes an answer and opens the user's next turn, with new images if any.

        Images are counted from the start in every turn, as in the published multi-turn forms.

        Args:
            images: New ones of this turn; often none.
            first_image: Index of the first of them among the conversation's images.
            position: `next_position` of what precedes.
        """
        pieces = self._template.next_turn()
        return self._render(pieces, images, first_image=first_image, position=position)

    def _words(self, question: str, *, follows_images: bool) -> str:
        """Write the user's words: as they are, for most templates."""
        del follows_images
        return question

    @abstractmethod
    def _render(
        self,
        pieces: Sequence[Piece],
        images: Sequence[VisionInputs],
        *,
        first_image: int,
        position: int,
    ) -> PromptPart:
        """Render pieces, then images."""
