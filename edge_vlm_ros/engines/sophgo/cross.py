"""Cross-attention (Llama 3.2 Vision): layers of their own attend to one image, or to nothing.

Without an image those layers are left out, in prompts and answers, as the reference model does.
The prompt is a static build's: blocks of one size, from an empty cache; so an image can only be
shown to the first piece of a prompt, and is forgotten with its token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import ref

from numpy.typing import NDArray

from edge_vlm_ros.core import (
    CrossAttended,
    EdgeVlmError,
    ModelFileError,
    PromptPart,
    TooManyFramesError,
    VisionFeatures,
)
from edge_vlm_ros.engines.checks import check_stop
from edge_vlm_ros.engines.sophgo.caches import LayerCache
from edge_vlm_ros.engines.sophgo.expect import Wanted, expect, input_of, misfit
from edge_vlm_ros.engines.sophgo.layers import CrossShapes, DecoderShapes, LayerKind
from edge_vlm_ros.engines.sophgo.masks import (
    causal_mask,
    cross_decode_mask,
    cross_mask,
    cross_row_mask,
)
from edge_vlm_ros.engines.sophgo.nets import Nets
from edge_vlm_ros.engines.sophgo.prefill.form import Positions, Run, send_mask
from edge_vlm_ros.engines.sophgo.prefill.static import StaticPrefill
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


@dataclass(frozen=True, slots=True)
class CrossPrefill:
    """Static blocks, some of which attend to an image.

    Attributes:
        rows: Tokens of one run.
    """

    rows: int
    is_fixed = True

    @classmethod
    def read(cls, nets: Nets, shapes: DecoderShapes) -> CrossPrefill | None:
        """Know itself by cross-attention layers; see `PrefillForm.read`."""
        if shapes.cross is None:
            return None
        static = StaticPrefill.read(nets, shapes)
        if static is None or f'block_kv_{shapes.first}' in nets:
            index = shapes.kinds.index(LayerKind.CROSS)
            raise ModelFileError(
                f'net block_{index}: cross-attention in a build that is not static'
            )
        return cls(static.rows)

    def check_layer(self, nets: Nets, index: int, shapes: DecoderShapes) -> None:
        """Check `block_<index>`, and the decode net of a cross-attention layer."""
        if shapes.kinds[index] is LayerKind.SELF:
            StaticPrefill(self.rows).check_layer(nets, index, shapes)
        else:
            _check_cross_layer(nets, index, shapes, self.rows)

    def own_values(self, shapes: DecoderShapes) -> int:
        """Count what static blocks take, the image's features and their mask."""
        columns = _cross_of(shapes).rows
        return StaticPrefill(self.rows).own_values(shapes) + columns * (self.rows + shapes.hidden)

    def describe(self) -> str:
        """Say what it is."""
        return StaticPrefill(self.rows).describe()

    def start(
        self, runtime: Runtime, shapes: DecoderShapes, caches: Sequence[LayerCache]
    ) -> CrossRunner:
        """Bind its nets."""
        return CrossRunner(runtime, shapes, self, caches)


class AttendedImages:
    """The one image that a context has room for: what of it lies on the chip, and until when.

    The mask of an answer's tokens is the same for a whole answer. Where the decode nets keep their
    inputs it is copied to each of them once an image, so that no launch has to fetch it.

    Args:
        runtime: The model's.
        shapes: The decoder's.
        rows: Tokens of a prefill run.

    Attributes:
        states: (rows of all tiles, hidden): the image's features.
        row_mask: (1, rows, 1): which tokens of the piece stand at or after the image.
        mask: (1, 1, rows, rows of all tiles): what each of them sees of it.
        masks: (1, 1, 1, rows of all tiles), by cross-attention layer: what an answer's token sees.
        has_image: Whether there is an image.
    """

    def __init__(self, runtime: Runtime, shapes: DecoderShapes, rows: int) -> None:
        columns, half = _cross_of(shapes).rows, shapes.half
        self._rows = rows
        self.states = runtime.allocate((columns, shapes.hidden), half)
        self.row_mask = runtime.allocate((1, rows, 1), half)
        self.mask = runtime.allocate((1, 1, rows, columns), half)
        self._answer_mask = runtime.allocate((1, 1, 1, columns), half)
        layers = [i for i, kind in enumerate(shapes.kinds) if kind is LayerKind.CROSS]
        self.masks = dict.fromkeys(layers, self._answer_mask)
        if shapes.cache_in_net:
            self.masks = {i: runtime.own_inputs(f'block_cache_{i}')[1] for i in layers}
        self.has_image = False
        self._sent: ref[NDArray[Any]] | None = None
        self._first = 0

    def check(self, part: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> None:
        """Refuse a second image, and one that comes after other tokens; see `Images`."""
        images = sorted({span.image for span in part.spans})
        if len(images) > 1 or len(part.spans) > 1:
            raise TooManyFramesError(
                f'{len(part.spans)} images in one prompt: the cache of this model holds 1'
            )
        if not images:
            return
        if held:
            raise TooManyFramesError(
                f'an image after {held} tokens: this model takes 1, in the first part of a prompt'
            )
        found = features.get(images[0])
        if not isinstance(found, CrossAttended) or found.states.size != self.states.size:
            raise EdgeVlmError(f'no features to attend to for image {images[0]} of the prompt')

    def usable_prefix(self, shared: int, prompt: PromptPart) -> int:
        """Start again where the image is yet to come: it is shown in the first piece alone."""
        return 0 if any(span.stop > shared for span in prompt.spans) else shared

    def show(self, piece: PromptPart, features: Mapping[int, VisionFeatures], held: int) -> bool:
        """Send the image of a prompt's first piece, and what its tokens see of it."""
        if held:
            return False
        self.has_image = False
        if not piece.spans:
            return False
        span = piece.spans[0]
        found = features[span.image]
        assert isinstance(found, CrossAttended)
        self._send_states(found)
        self._send_masks(span.start, len(piece), found.rows_used)
        self._first = span.start
        self.has_image = True
        return True

    def splice(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures], hidden: DeviceTensor
    ) -> None:
        """Leave the embeddings as they are: the image has a token of its own."""

    def rows_of_token(
        self, piece: PromptPart, features: Mapping[int, VisionFeatures]
    ) -> tuple[NDArray[Any], ...]:
        """Give none: every token is a word."""
        del piece, features
        return ()

    def settle(self, held: int) -> None:
        """Forget the image where the cache was cut to what precedes it."""
        if held <= self._first:
            self.has_image = False

    def _send_states(self, found: CrossAttended) -> None:
        """Send an image's features, unless they are there."""
        if self._sent is not None and self._sent() is found.states:
            return
        self._sent = None
        self.states.write(found.states)
        self._sent = ref(found.states)

    def _send_masks(self, first: int, tokens: int, rows_used: int) -> None:
        """Send what the prompt's and the answer's tokens see of the image."""
        half = self.states.dtype
        answer = cross_decode_mask(rows_used, self.states.shape[0], half)
        self.row_mask.write(cross_row_mask(first, tokens, self._rows, half))
        self.mask.write(cross_mask(first, tokens, self._rows, answer, half))
        self._answer_mask.write(answer)
        for own in self.masks.values():
            if own is not self._answer_mask:
                own.copy_from(self._answer_mask, 0, 0, own.size)


class CrossRunner:
    """Runs static blocks; those of cross-attention layers only with an image."""

    may_step = False  # an image can only be shown to a piece
    history = 0

    def __init__(
        self,
        runtime: Runtime,
        shapes: DecoderShapes,
        form: CrossPrefill,
        caches: Sequence[LayerCache],
    ) -> None:
        self._rows = form.rows
        self._kinds = shapes.kinds
        self.images = AttendedImages(runtime, shapes, form.rows)
        self.hidden = runtime.allocate((1, form.rows, shapes.hidden), shapes.half)
        self._positions = Positions(runtime, shapes)
        causal = send_mask(runtime, causal_mask(form.rows, shapes.half), shapes.half)
        kv, images = shapes.kv(form.rows), self.images
        inputs = {
            LayerKind.SELF: [self.hidden, self._positions.tensor, causal],
            LayerKind.CROSS: [self.hidden, images.states, images.row_mask, images.mask],
        }
        self._launches = []
        for i, (kind, cache) in enumerate(zip(shapes.kinds, caches, strict=True)):
            outputs = [cache.keys, cache.values]
            if kind is LayerKind.SELF:
                outputs = [tensor.view(kv) for tensor in outputs]
            launch = Launch(runtime, f'block_{i}', inputs[kind], [self.hidden, *outputs])
            self._launches.append(launch)

    def room(self, held: int) -> int:
        """Return how many tokens one piece may have."""
        return 0 if held else self._rows

    def run(self, run: Run) -> DeviceTensor:
        """Run a piece that the images were shown; see `PrefillRunner`."""
        assert run.held == 0
        self._positions.send(run.positions)
        for kind, launch in zip(self._kinds, self._launches, strict=True):
            if kind is LayerKind.CROSS and not self.images.has_image:
                continue
            check_stop(run.should_stop)
            launch.run()
        return self.hidden


def _cross_of(shapes: DecoderShapes) -> CrossShapes:
    assert shapes.cross is not None
    return shapes.cross


def _check_cross_layer(nets: Nets, index: int, shapes: DecoderShapes, rows: int) -> None:
    cross, half = _cross_of(shapes), shapes.half
    hidden: Wanted = ((1, rows, shapes.hidden), half)
    cache: Wanted = ((1, cross.heads, cross.rows, cross.head_dim), half)
    block = nets[f'block_{index}']
    states = (input_of(block, 1).shape, half)
    if prod(states[0]) != cross.rows * shapes.hidden:
        raise misfit(block, input_of(block, 1), f'{cross.rows} rows', f'{states[0]}')
    expect(
        block,
        [hidden, states, ((1, rows, 1), half), ((1, 1, rows, cross.rows), half)],
        [hidden, cache, cache],
    )
    one: Wanted = ((1, 1, shapes.hidden), half)
    mask: Wanted = ((1, 1, 1, cross.rows), half)
    expect(nets[f'block_cache_{index}'], [one, mask, cache, cache], [one])
