"""How the images of a prompt get to the layers: one class for each way.

`SplicedImages` puts features in the place of placeholders; `cross.AttendedImages` shows one image
to layers of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from numpy.typing import NDArray

from edge_vlm_ros.core import PromptPart, VisionFeatures
from edge_vlm_ros.engines.checks import check_spans, deepstack_of, rows_of
from edge_vlm_ros.engines.sophgo.deepstack import Deepstack
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.runtime import Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class Images(Protocol):
    """One way in which images get to the layers."""

    @property
    def masks(self) -> Mapping[int, DeviceTensor]:
        """What an answer's tokens see of the image, by cross-attention layer."""
        ...

    @property
    def has_image(self) -> bool:
        """Whether cross-attention layers attend to an image; otherwise they are left out."""
        ...

    def check(self, part: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> None:
        """Refuse images that cannot be shown after `held` tokens.

        Raises:
            TooManyFramesError: There are more than the model takes.
            EdgeVlmError: Features are missing or not the prompt's.
        """
        ...

    def usable_prefix(self, shared: int, prompt: PromptPart) -> int:
        """Say how much of a prefix the images of the rest can be shown after."""
        ...

    def show(self, piece: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> bool:
        """Make ready for a checked piece after `held` tokens.

        Returns:
            Whether the piece has to run through the prefill nets, short as it may be.
        """
        ...

    def splice(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures], hidden: DeviceTensor
    ) -> None:
        """Write features over the embeddings of their placeholders, (1, rows, hidden)."""
        ...

    def rows_of_token(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures]
    ) -> tuple[NDArray[Any], ...]:
        """Return what stands for a single token instead of a word; () = it is a word.

        Returns:
            (hidden,) each: in place of its embedding, then what is added after the first layers.
        """
        ...

    def settle(self, held: int) -> None:
        """Forget an image where the cache was cut to what precedes it."""
        ...


class SplicedImages:
    """Features that take the place of placeholders, as often as the prompt likes.

    Args:
        hidden_size: Width of the language model.
        deepstack: What is added to the same tokens after the first layers; None = nothing is.
    """

    masks: Mapping[int, DeviceTensor] = MappingProxyType({})
    has_image = False

    def __init__(self, hidden_size: int, deepstack: Deepstack | None = None) -> None:
        self._hidden_size = hidden_size
        self._deepstack = deepstack

    @classmethod
    def start(cls, runtime: Runtime, shapes: DecoderShapes, rows: int) -> SplicedImages:
        """Take what memory it needs for pieces of up to `rows` tokens."""
        deepstack = Deepstack(runtime, shapes, rows) if shapes.deepstack else None
        return cls(shapes.hidden, deepstack)

    @property
    def _layers(self) -> int:
        return 0 if self._deepstack is None else self._deepstack.layers

    def check(self, part: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> None:
        """Refuse features that are not the prompt's; see `Images`."""
        del held
        check_spans(part, features, self._hidden_size, self._layers)

    def usable_prefix(self, shared: int, prompt: PromptPart) -> int:
        """Go on from all of it: an image may stand anywhere."""
        del prompt
        return shared

    def show(self, piece: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> bool:
        """Need nothing: a placeholder is a token like any other."""
        del piece, features, held
        return False

    def splice(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures], hidden: DeviceTensor
    ) -> None:
        """Write the features over the embeddings of their placeholders."""
        for span in piece.spans:
            hidden.write(rows_of(span, features), span.start * self._hidden_size)
        if self._deepstack is not None:
            self._deepstack.send(piece, features)

    def add_after(self, layer: int, hidden: DeviceTensor) -> None:
        """Add to a piece's hidden states what follows a layer, where something does."""
        if self._deepstack is not None:
            self._deepstack.add_after(layer, hidden)

    def rows_of_token(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures]
    ) -> tuple[NDArray[Any], ...]:
        """Return what stands for a single token instead of a word."""
        for span in piece.spans:
            rows = (rows_of(span, features), *deepstack_of(span, features))
            return tuple(one[0] for one in rows)
        return ()

    def settle(self, held: int) -> None:
        """Forget nothing: what was cut off went with its rows."""
        del held
