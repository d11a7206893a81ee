r"""SmolVLM and SmolVLM2 (Idefics3): a grid of squares, the whole image last.

A frame alone is brought to a longest side, then to whole tiles, and cut; each tile stands in the
prompt after `<fake_token_around_image>` and its place in the grid, the whole image after
`<global-img>`. A frame that makes one tile only, and each of several, is the whole image alone.
Images stand side by side before the question, with nothing between them.

    <|im_start|>User:{images}{question}<end_of_utterance>\nAssistant:
    <|im_start|>User: {question}<end_of_utterance>\nAssistant:

Words after images follow at once; words that come first follow a blank. The answer, too, begins
with a blank.

Source: huggingface/transformers, models/idefics3 and models/smolvlm (image_processing_*.py,
processing_*.py) and the models' chat templates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_vlm_ros.core import (
    BadImageError,
    EngineLimits,
    Frame,
    ModelConfig,
    ModelFileError,
    Options,
    PromptPart,
    RgbImage,
    ShownAs,
    VisionInputs,
    VisionSpan,
    count,
    text_part,
)
from edge_vlm_ros.families.model_folder import check_tile_size, normaliser_of, stop_tokens_of
from edge_vlm_ros.families.options import ResizeFilter
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.families.tile_budget import TileCosts, choose_tiles
from edge_vlm_ros.text import SMOLVLM, Piece, Special, Tokenizer, encode_pieces
from edge_vlm_ros.vision import Normaliser, Resizer, resize_exact_lanczos, resize_fast

AROUND = Special('<fake_token_around_image>')
WHOLE = Special('<global-img>')
PLACEHOLDER = '<image>'

_RESIZERS: Mapping[str, Resizer] = {'exact': resize_exact_lanczos, 'fast': resize_fast}
_LANCZOS = 1
"""Pillow's number of the filter, `resample` of the preprocessor's file."""
_LARGEST_PX = 4096
"""Longer sides the published preprocessor shrinks again (MAX_IMAGE_SIZE)."""
_SHORT_QUESTION = 'What?'


@dataclass(frozen=True, slots=True)
class Idefics3Options(Options):
    """What a user may choose.

    Attributes:
        max_tiles: Most tiles that one frame is cut into, the whole image not counted: a square of
            N x N, so 1, 4, 9 or 16; 0 = as many as the model's files say and the engine bears
            without a long wait. Every tile costs a run of the vision tower and its share of
            context.
        resize: Which filter.
    """

    max_tiles: int = count()
    resize: ResizeFilter = 'exact'


OPTIONS = Idefics3Options


@dataclass(frozen=True, slots=True)
class SquareTiling:
    """How a frame alone becomes tiles.

    Attributes:
        tile_px: Side of a tile; even.
        longest_px: What a frame's longest side is brought to first; even.
        is_split: Whether it is cut at all; else it is squashed into one tile.
    """

    tile_px: int
    longest_px: int
    is_split: bool

    @property
    def most_a_side(self) -> int:
        """Rows of tiles, and columns, of a square frame, which makes most of them."""
        return math.ceil(self.longest_px / self.tile_px) if self.is_split else 1

    def bounded(self, tiles: int) -> SquareTiling:
        """Return the tiling whose grids have so many tiles at most: the largest square of them."""
        side = max(math.isqrt(tiles), 1)
        if side >= self.most_a_side:
            return self
        return replace(self, longest_px=side * self.tile_px)

    def first_size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return width and height at the longest side, enlarged too; the other side even."""
        ratio = width_px / height_px
        if width_px >= height_px:
            return self.longest_px, max(_even(int(self.longest_px / ratio)), 1)
        return max(_even(int(self.longest_px * ratio)), 1), self.longest_px

    def grid(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Return columns and rows for an image at `first_size`."""
        ratio, tile = width_px / height_px, self.tile_px
        if width_px >= height_px:
            columns = math.ceil(width_px / tile)
            return columns, math.ceil(int(columns * tile / ratio) / tile)
        rows = math.ceil(height_px / tile)
        return math.ceil(int(rows * tile * ratio) / tile), rows


@dataclass(frozen=True, slots=True)
class Idefics3Settings:
    """What one model's files and the options say.

    Attributes:
        tokenizer: The model's.
        options: The user's.
        tiling: How a frame that stands alone becomes tiles.
        tokens_per_tile: Placeholders that one tile takes.
        normalise: With the model's mean and deviation.
        placeholder: Id that stands for a row of features.
        stop_tokens: Ids that end an answer.
    """

    tokenizer: Tokenizer
    options: Idefics3Options
    tiling: SquareTiling
    tokens_per_tile: int
    normalise: Normaliser
    placeholder: int
    stop_tokens: frozenset[int]

    def bound_by(self, limits: EngineLimits) -> Idefics3Family:
        """Make the family with as many tiles as the engine bears.

        Raises:
            ModelFileError: The engine's vision tower takes tiles of another size.
            BadRequestError: The user asked for more tiles than the engine takes.
        """
        check_tile_size(self.tiling.tile_px, limits)
        most = choose_tiles(self.tile_costs(), self.options.max_tiles, limits)
        return Idefics3Family(replace(self, tiling=self.tiling.bounded(most)))

    def tile_costs(self) -> TileCosts:
        """Say what the tiles of one frame cost; a square frame makes most of them."""
        side = self.tiling.most_a_side
        runs: tuple[Sequence[Piece], ...] = (
            (*SMOLVLM.opening(''), AROUND),
            (_SHORT_QUESTION, *SMOLVLM.closing()),
        )
        breaks = side if side > 1 else 0  # After each row, the last one's with that of the whole.
        return TileCosts(
            tiles=side**2,
            thumbnails=1,
            tile_tokens=self.tokens_per_tile + 2,
            text_tokens=breaks + sum(len(encode_pieces(self.tokenizer, run)) for run in runs),
        )


def read(config: ModelConfig, options: Idefics3Options) -> Idefics3Settings:
    """Read what a model's files say; see `families.read_family`."""
    tokenizer = Tokenizer.load(config.folder)
    tiling = _tiling_of(config)
    if options.max_tiles:
        tiling = tiling.bounded(options.max_tiles)
    side = range(tiling.most_a_side)
    places = (_place(row, column) for row in side for column in side)
    encode_pieces(tokenizer, (AROUND, WHOLE, *places))  # all must be there
    return Idefics3Settings(
        tokenizer=tokenizer,
        options=options,
        tiling=tiling,
        tokens_per_tile=_tokens_per_tile(config, tiling.tile_px),
        normalise=normaliser_of(config.preprocessor),
        placeholder=tokenizer.token_id(PLACEHOLDER),
        stop_tokens=stop_tokens_of(tokenizer, config, SMOLVLM.stop),
    )


class Idefics3Family(TemplatedFamily):
    """Preprocessing, prompt form and stop rule of one SmolVLM model.

    Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
    """

    def __init__(self, settings: Idefics3Settings) -> None:
        super().__init__(settings.tokenizer, SMOLVLM, settings.stop_tokens)
        self.settings = settings
        self._resize = _RESIZERS[settings.options.resize]

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize, tile and normalise one frame as the model was trained.

        Args:
            frame: Left unchanged.
            shown_as: AMONG_OTHERS it gets one tile, as the frames of a video do.

        Returns:
            pixels float32 (tiles, 3, tile_px, tile_px), the whole image last; grid (tiles, rows,
            columns), with 0 rows and columns where the whole image is the only tile.

        Raises:
            BadImageError: A side of 0.
        """
        tiling = self.settings.tiling
        if shown_as is not ShownAs.ALONE:
            tiling = SquareTiling(tiling.tile_px, tiling.tile_px, is_split=False)
        tiles, rows, columns = self._cut(frame.pixels, tiling)
        pixels = np.empty((len(tiles), 3, tiling.tile_px, tiling.tile_px), np.float32)
        for tile, out in zip(tiles, pixels, strict=True):
            self.settings.normalise(tile, out=out)
        return VisionInputs(
            pixels,
            (len(tiles), rows, columns),
            len(tiles) * self.settings.tokens_per_tile,
            images=len(tiles),
            shown_as=shown_as,
        )

    def encode_answer(self, text: str) -> Sequence[int]:
        """Return the tokens of a text as the model would say it: after a blank."""
        return super().encode_answer(f' {text}')

    def _words(self, question: str, *, follows_images: bool) -> str:
        """Write the user's words: at once after images, after a blank where they come first."""
        return question if follows_images else f' {question}'

    def _cut(self, image: RgbImage, tiling: SquareTiling) -> tuple[list[RgbImage], int, int]:
        """Return tiles of one size, row by row, the whole image last; rows and columns."""
        height, width = image.shape[:2]
        if min(height, width) < 1:
            raise BadImageError(f'an image of {width}x{height} px cannot be tiled')
        px = tiling.tile_px
        image = self._resize(image, *tiling.first_size(width, height))
        if not tiling.is_split:
            return [self._resize(image, px, px)], 0, 0
        height, width = image.shape[:2]
        columns, rows = tiling.grid(width, height)
        image = self._resize(image, columns * px, rows * px)
        if rows * columns == 1:
            return [image], 0, 0
        places = ((row * px, column * px) for row in range(rows) for column in range(columns))
        tiles = [image[top : top + px, left : left + px] for top, left in places]
        return [*tiles, self._resize(image, px, px)], rows, columns

    def _render(
        self,
        pieces: Sequence[Piece],
        images: Sequence[VisionInputs],
        *,
        first_image: int,
        position: int,
    ) -> PromptPart:
        """Render pieces, then images: a span for each of their tiles."""
        ids: list[int] = []
        spans: list[VisionSpan] = []
        before = list(pieces)
        tokens = self.settings.tokens_per_tile
        for number, image in enumerate(images, first_image):
            for tile, around in enumerate(_around_tiles(image.grid)):
                ids += encode_pieces(self._tokenizer, [*before, *around])
                spans.append(VisionSpan(number, len(ids), len(ids) + tokens, tile * tokens))
                ids += [self.settings.placeholder] * tokens
                before = []
            before = [AROUND]
        ids += encode_pieces(self._tokenizer, before)
        return replace(text_part(ids, position), spans=tuple(spans))


def _around_tiles(grid: tuple[int, int, int]) -> list[tuple[Piece, ...]]:
    """Return what stands before each tile of an image.

    A row ends with a line break, and the whole image begins with one: two in a run are one token
    to the published tokenizers.
    """
    _, rows, columns = grid
    around: list[tuple[Piece, ...]] = []
    for row in range(rows):
        for column in range(columns):
            breaks = ('\n',) if row and not column else ()
            around.append((*breaks, AROUND, _place(row, column)))
    return [*around, (*(('\n\n',) if rows else ()), AROUND, WHOLE)]


def _place(row: int, column: int) -> Special:
    return Special(f'<row_{row + 1}_col_{column + 1}>')


def _even(side_px: int) -> int:
    return side_px + side_px % 2


def _tiling_of(config: ModelConfig) -> SquareTiling:
    preprocessor = config.preprocessor
    tile_px = preprocessor.section('max_image_size').count('longest_edge')
    longest_px = preprocessor.section('size').count('longest_edge')
    if longest_px > _LARGEST_PX or longest_px < tile_px or longest_px % 2 or tile_px % 2:
        raise ModelFileError(
            f'{preprocessor.path}: size.longest_edge is {longest_px}, max_image_size.longest_edge '
            f'{tile_px}: expected even numbers, the first at least the second and at most '
            f'{_LARGEST_PX}'
        )
    if preprocessor.count('resample', _LANCZOS) != _LANCZOS:
        raise preprocessor.error('resample', f'{_LANCZOS} (lanczos)')
    is_split = preprocessor.flag('do_image_splitting', default=True)
    return SquareTiling(tile_px, longest_px, is_split)


def _tokens_per_tile(config: ModelConfig, tile_px: int) -> int:
    """Count the placeholders of a tile: its patches, shrunk by the pixel shuffle on either side.

    Source: models/idefics3/processing_idefics3.py, image_seq_len.
    """
    size_px, patch_px = config.vision.count('image_size'), config.vision.count('patch_size')
    scale = config.model.count('scale_factor', 2)
    if size_px != tile_px or size_px % (patch_px * scale):
        raise ModelFileError(
            f'{config.model.path}: tiles of {size_px} px ({tile_px} px in '
            f'{config.preprocessor.path.name}), patches of {patch_px} px and a scale_factor of '
            f'{scale} do not fit together'
        )
    return int((size_px // patch_px // scale) ** 2)
