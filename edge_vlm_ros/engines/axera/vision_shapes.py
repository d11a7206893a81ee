"""What a vision tower of a set takes and gives, read off its tensors' shapes.

    tiles     (1, 3, px, px) or (1, px, px, 3) -> rows of the language model's width
    patches   (1, n, values, 3) or (1, n, 3 * values) -> n / 4 rows: Qwen2.5-VL and its successors;
              Qwen3-VL's with as many rows again for each of the first decoder layers

Values of a patch: frame, row, column, then colour; without an axis of colours they are those of
the published processors, colour first. Where its patches lie, in which windows they attend and in
which order rows come out is compiled into the tower: it knows one grid, and that is a square.

Source: AXERA-TECH/Qwen2.5-VL-3B-Instruct.axera (python/preprocess.py, model_convert) and the
vendor's run logs of it: (1, 1024, 392, 3) -> (256, 2048), (1, 484, 392, 3) -> (121, 2048);
AXERA-TECH/Qwen3-VL.AXERA (python, model_convert): (1, 576, 512, 3) -> hidden_states_out and
deepstack_feature_0 to 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge_vlm_ros.engines.axera.graphs import Declared, misfit
from edge_vlm_ros.engines.axera.runtime import BFLOAT16, TensorInfo

_MERGED = 4
_COLOURS = 3
_DEEPSTACK = 'deepstack'


@dataclass(frozen=True, slots=True)
class VisionShapes:
    """What a vision tower takes and gives.

    Attributes:
        tile_px: Side of the square; 0 = it takes patches.
        rows: Feature rows of one tile, or of all patches.
        width: Of one row.
        is_channels_last: Colours are the innermost axis.
        takes_bytes: uint8 pixels, normalised inside, and not normalised float32.
        output: Place of the features among the outputs.
        deepstack: Places of those that the first decoder layers add (Qwen3-VL), in their order.
        patches: Of one run; 0 = it takes tiles.
        patch_values: Of one patch, all colours of all frames.
    """

    tile_px: int
    rows: int
    width: int
    is_channels_last: bool
    takes_bytes: bool
    output: int
    patches: int = 0
    patch_values: int = 0
    deepstack: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches; (0, 0) = it takes tiles."""
        side = math.isqrt(self.patches)
        return side, side


def read_vision(vision: Declared, hidden: int) -> VisionShapes:
    """Tell what a vision tower takes and gives.

    Args:
        vision: The file.
        hidden: Width that the language model wants.

    Raises:
        ModelFileError: It is no vision tower, or one of another model.
    """
    group = vision.groups[0]
    image = group.inputs[0]
    place = next((i for i, t in enumerate(group.outputs) if t.name == 'output'), 0)
    features = group.outputs[place]
    rows = math.prod(features.shape[:-1])
    patches, values = _patches(image, rows)
    tile_px = 0 if patches else _tile_px(image)
    if len(group.inputs) != 1 or not (patches or tile_px):
        raise misfit(
            vision, image.name,
            'one input, an image of (1, 3, px, px) or (1, px, px, 3), or patches of a square grid '
            f'(1, {_MERGED} * rows, values, 3)',
            f'{len(group.inputs)} inputs, this one {image}: no vision model',
        )  # fmt: skip
    if image.dtype not in {'float32', 'uint8'}:
        raise misfit(vision, image.name, 'float32 or uint8', image.dtype)
    if len(features.shape) < 2 or features.shape[-1] != hidden:
        raise misfit(
            vision,
            features.name,
            f'rows of width {hidden}, as the language model takes them',
            f"{features}: another model's vision file",
        )
    if features.dtype not in {'float32', BFLOAT16}:
        raise misfit(vision, features.name, 'float32 or bfloat16', features.dtype)
    return VisionShapes(
        tile_px=tile_px,
        rows=rows,
        width=hidden,
        is_channels_last=image.shape[-1] == _COLOURS,
        takes_bytes=image.dtype == 'uint8',
        output=place,
        patches=patches,
        patch_values=values,
        deepstack=_deepstack(vision, features),
    )


def _deepstack(vision: Declared, features: TensorInfo) -> tuple[int, ...]:
    """Find the outputs that are named as deepstack features; all are like the features."""
    outputs = vision.groups[0].outputs
    places = [i for i, output in enumerate(outputs) if _DEEPSTACK in output.name]
    for output in (outputs[i] for i in places):
        if (output.shape, output.dtype) != (features.shape, features.dtype):
            raise misfit(vision, output.name, f'{features}', f'{output}')
    return tuple(places)


def _tile_px(image: TensorInfo) -> int:
    """Return the side of a square image; 0 = it is none."""
    shape = image.shape
    square = shape[2:] if shape[1:2] == (_COLOURS,) else shape[1:3]
    is_image = len(shape) == 4 and shape[0] == 1 and len(set(square)) == 1
    return square[0] if is_image and _COLOURS in {shape[1], shape[-1]} else 0


def _patches(image: TensorInfo, rows: int) -> tuple[int, int]:
    """Return how many patches a tower takes and the values of each; (0, 0) = it takes none.

    A square image is told apart by its rows: of its lines there are never four to a row.
    """
    shape = image.shape
    by_colour = len(shape) == 4 and shape[-1] == _COLOURS and shape[1] != shape[2]
    if shape[:1] != (1,) or not (len(shape) == 3 or by_colour):
        return 0, 0
    patches, values = shape[1], math.prod(shape[2:])
    side = math.isqrt(patches)
    is_grid = side**2 == patches and side % 2 == 0 and patches == _MERGED * rows
    return (patches, values) if is_grid else (0, 0)
