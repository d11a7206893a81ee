"""Features that are added to an image's tokens after the first layers (Qwen3-VL's deepstack).

A net `add` of its own does it between two layers, for as many rows as the longest piece has: its
second input holds an image's features at the image's rows, and zeros at words. So it is left out
where a piece shows no image: in answers and in most second turns. A token that goes through the
decode nets by itself is added to on the host: a few kilobytes there and back, for an image's
tokens alone, of which the planner sends few that way.

Source: sophgo/LLM-TPU, models/Qwen3_VL (net names, their order and what the driver sends).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import ModelFileError, PromptPart, VisionFeatures
from edge_vlm_ros.engines.checks import deepstack_of
from edge_vlm_ros.engines.sophgo.expect import Wanted, expect, input_of, misfit, net_of
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.masks import from_host, to_half
from edge_vlm_ros.engines.sophgo.nets import Nets
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


def check_add(nets: Nets, shapes: DecoderShapes, rows: int) -> None:
    """Check the net `add`, where the vision tower has features for it.

    Args:
        nets: The file's.
        shapes: Of its decoder.
        rows: Tokens of the longest piece.

    Raises:
        ModelFileError: It is missing, of another size, or the decoder has too few layers for it.
    """
    if not shapes.deepstack:
        return
    if shapes.deepstack >= len(shapes.kinds) or shapes.cross is not None:
        raise ModelFileError(
            f'net vit: features for {shapes.deepstack} layers beside those of the prompt, '
            f'the decoder has {len(shapes.kinds)} layers to add them between'
        )
    net = net_of(nets, 'add')
    found = input_of(net, 0)
    if prod(found.shape) != rows * shapes.hidden:
        raise misfit(net, found, f'{rows} rows of {shapes.hidden}', f'{found.shape}')
    each: Wanted = (found.shape, shapes.half)
    expect(net, [each, each], [each])


class Deepstack:
    """The features of a piece's images on the chip, and the net that adds them.

    Args:
        runtime: The model's.
        shapes: The decoder's.
        rows: Tokens of the longest piece.
    """

    def __init__(self, runtime: Runtime, shapes: DecoderShapes, rows: int) -> None:
        size = (rows * shapes.hidden,)
        self._width, self._rows = shapes.hidden, rows
        self._features = [runtime.allocate(size, shapes.half) for _ in range(shapes.deepstack)]
        self._launches = [Launch(runtime, 'add', [each, each], [each]) for each in self._features]
        self._zeros = runtime.allocate_host(np.zeros(size, shapes.half.host), shapes.half)
        self._held = np.zeros(rows, np.bool_)  # Rows that are not zeros.
        self._is_shown = False

    @property
    def layers(self) -> int:
        """Decoder layers after which something is added."""
        return len(self._launches)

    def send(self, piece: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Have a piece's features on the chip, and zeros where its words are."""
        shown = np.zeros(self._rows, np.bool_)
        for span in piece.spans:
            shown[span.start : span.stop] = True
        self._is_shown = bool(shown.any())
        if not self._is_shown:  # What is left on the chip is not added.
            return
        left = np.flatnonzero(np.diff(np.r_[False, self._held & ~shown, False]))
        self._held |= shown
        for start, stop in left.reshape(-1, 2).tolist():
            for tensor in self._features:
                count = (stop - start) * self._width
                tensor.copy_from_host(self._zeros, 0, start * self._width, count)
        for span in piece.spans:
            for tensor, rows in zip(self._features, deepstack_of(span, features), strict=True):
                tensor.write(rows, span.start * self._width)
        self._held = shown

    def add_after(self, layer: int, hidden: DeviceTensor) -> None:
        """Add to the hidden states that a layer gave, in place; (1, rows, hidden)."""
        if self._is_shown and layer < self.layers:
            launch = self._launches[layer]
            launch.bind_input(0, hidden)
            launch.bind_output(0, hidden)
            launch.run()


def add_to_row(hidden: DeviceTensor, features: NDArray[Any]) -> None:
    """Add to one token's hidden state, on the host: (1, 1, hidden) and (hidden,)."""
    half = hidden.dtype
    bits = features.view(np.uint16)
    total = from_host(hidden.read(), half) + from_host(bits, half)
    hidden.write(to_half(total, half))
