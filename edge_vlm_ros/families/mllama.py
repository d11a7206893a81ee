"""Llama 3.2 Vision: tiles on a canvas, the Llama 3 template, features attended to from the side.

An image stands in the prompt as one token, `<|image|>`; images come before the question, nothing
between. Its features are not spliced in: some layers of the language model attend to them.

What an engine gets (`VisionInputs`): `pixels` (max_tiles, 3, tile_px, tile_px), the image's tiles
row by row, then tiles of zeros; `grid` (1, rows, columns) of tiles, from which
`vision.aspect_ratio_id` and `vision.aspect_ratio_mask` make the vision tower's other inputs; and
`tokens` 0. It answers with `CrossAttended`: rows_used = rows * columns * rows of one tile.

Which text attends: the prompt has a `VisionSpan` of one token at each `<|image|>`. This token and
all that follow, answers and later turns too, attend to the used rows of that image, up to the
next image's token; images side by side are attended to together. What stands before the first one
attends to no image (the row mask), and a prompt without any attends to none: then the layers with
cross attention are left out.

A system block precedes a conversation that begins without an image, or where a system prompt was
given; it carries two lines with dates. Today's date is not looked up: the template's own stand-in
is used, so that the same question is the same prompt tomorrow. Images that come in later turns
follow whatever came before.

Source: huggingface/transformers, models/mllama (image_processing_mllama.py,
processing_mllama.py, modeling_mllama.py); meta-llama/Llama-3.2-11B-Vision-Instruct,
chat_template.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edge_vlm_ros.core import (
    EngineLimits,
    Frame,
    ModelConfig,
    Options,
    PromptPart,
    ShownAs,
    VisionInputs,
    VisionSpan,
    count,
    text_part,
)
from edge_vlm_ros.families.model_folder import check_tile_size, normaliser_of, stop_tokens_of
from edge_vlm_ros.families.options import ResizeFilter
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.text import LLAMA3, Piece, Special, Tokenizer, encode_pieces
from edge_vlm_ros.vision import (
    Normaliser,
    choose_canvas,
    pixels_for_canvas,
    resize_exact_bilinear,
    resize_fast,
)

IMAGE = Special('<|image|>')
DATES = 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n'
"""Content of the model's template, with its stand-in for today's date."""

END_OF_MESSAGE = '<|eom_id|>'
"""Ends an answer that calls a tool."""

_RESIZERS = {'exact': resize_exact_bilinear, 'fast': resize_fast}


@dataclass(frozen=True, slots=True)
class MllamaOptions(Options):
    """What a user may choose.

    Attributes:
        max_tiles: Most tiles that one frame is cut into; 0 = as the model's files say.
        resize: Which filter.
    """

    max_tiles: int = count()
    resize: ResizeFilter = 'exact'


OPTIONS = MllamaOptions


@dataclass(frozen=True, slots=True)
class MllamaSettings:
    """What one model's files and the options say.

    Attributes:
        tokenizer: The model's.
        options: The user's.
        tile_px: Side of a tile.
        model_tiles: Tiles that the vision tower takes; those that an image lacks are zeros.
        max_tiles: Most tiles that an image is cut into; at most `model_tiles`.
        normalise: With the model's mean and deviation.
        image: Id of the token that stands for an image.
        stop_tokens: Ids that end an answer.
    """

    tokenizer: Tokenizer = field(repr=False)
    options: MllamaOptions
    tile_px: int
    model_tiles: int
    max_tiles: int
    normalise: Normaliser
    image: int
    stop_tokens: frozenset[int]

    def bound_by(self, limits: EngineLimits) -> MllamaFamily:
        """Make the family: how many tiles there are, files and options say.

        Raises:
            ModelFileError: The engine's vision tower takes tiles of another size.
        """
        check_tile_size(self.tile_px, limits)
        return MllamaFamily(self)


def read(config: ModelConfig, options: MllamaOptions) -> MllamaSettings:
    """Read what a model's files say; see `families.read_family`."""
    tokenizer = Tokenizer.load(config.folder)
    tiles = config.vision.count('max_num_tiles', 4)
    most = config.preprocessor.count('max_image_tiles', tiles)
    # Not in every tokenizer.
    ends = [token for token in (END_OF_MESSAGE,) if tokenizer.find_token(token) is not None]
    return MllamaSettings(
        tokenizer=tokenizer,
        options=options,
        tile_px=_tile_px(config),
        model_tiles=tiles,
        max_tiles=min(most, tiles, options.max_tiles or most),
        normalise=normaliser_of(config.preprocessor),
        image=tokenizer.token_id(IMAGE.token),
        stop_tokens=stop_tokens_of(tokenizer, config, (*LLAMA3.stop, *ends)),
    )


class MllamaFamily(TemplatedFamily):
    """Preprocessing, prompt form and stop rule of one Llama 3.2 Vision model.

    Use from one thread at a time.

    Args:
        settings: The model's; its engine takes tiles of this size.
    """

    def __init__(self, settings: MllamaSettings) -> None:
        super().__init__(settings.tokenizer, LLAMA3, settings.stop_tokens)
        self.settings = settings
        self._resize = _RESIZERS[settings.options.resize]

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize one image, lay it on its canvas, normalise it and cut it into tiles.

        Args:
            frame: Left unchanged.
            shown_as: AMONG_OTHERS it gets one tile, for the model was not trained on clips and
                every tile costs the same.

        Returns:
            pixels float32 (model_tiles, 3, tile_px, tile_px); grid (1, rows, columns) of tiles;
            tokens 0.

        Raises:
            BadImageError: A side of 0.
        """
        settings = self.settings
        height, width = frame.pixels.shape[:2]
        most = settings.max_tiles if shown_as is ShownAs.ALONE else 1
        canvas = choose_canvas(width, height, settings.tile_px, most)
        pixels = np.zeros(
            (settings.model_tiles, 3, settings.tile_px, settings.tile_px), np.float32
        )
        used = pixels[: canvas.rows * canvas.columns]
        pixels_for_canvas(frame.pixels, canvas, settings.normalise, self._resize, out=used)
        grid = (1, canvas.rows, canvas.columns)
        return VisionInputs(pixels, grid, tokens=0, shown_as=shown_as)

    def render_prefix(self, images: Sequence[VisionInputs], system_prompt: str) -> PromptPart:
        """Render all that precedes the first question: system text, then images, oldest first.

        Args:
            images: What was made of the frames; image i of the prompt is the i-th.
            system_prompt: '' = none; without images the dates alone.
        """
        has_block = bool(system_prompt.strip()) or not images
        opening = LLAMA3.opening(f'{DATES}{system_prompt.strip()}' if has_block else '')
        return self._render(opening, images, first_image=0, position=0)

    def _render(
        self,
        pieces: Sequence[Piece],
        images: Sequence[VisionInputs],
        *,
        first_image: int,
        position: int,
    ) -> PromptPart:
        """Render pieces, then one token for each image."""
        ids = encode_pieces(self._tokenizer, pieces)
        places = range(len(ids), len(ids) + len(images))
        ids += [self.settings.image] * len(images)
        spans = (VisionSpan(first_image + n, place, place + 1) for n, place in enumerate(places))
        return replace(text_part(ids, position), spans=tuple(spans))


def _tile_px(config: ModelConfig) -> int:
    """Return the side of a tile, which both files must agree on."""
    tile_px = config.vision.count('image_size', 560)
    size = config.preprocessor.section('size')
    for side in ('height', 'width'):
        if size.count(side, tile_px) != tile_px:
            raise size.error(side, f'{tile_px} as in config.json')
    return tile_px
