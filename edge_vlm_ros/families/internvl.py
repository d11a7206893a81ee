"""InternVL 2, 2.5 and 3, and the demo model: tiles, features spliced in at placeholders.

A frame stands in the prompt as `<img>`, its placeholders, `</img>` and a line break; each of
several frames has `Frame1: `, `Frame2: `, ... before it. Frames come before the question. What
stands around that depends on the language model, and config.json names it (`template`): ChatML in
one of three forms, or Phi-3's.

Source: OpenGVLab/InternVL, conversation.py (templates) and the model cards (frames of a video).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_vlm_ros.core import (
    EngineLimits,
    Frame,
    ModelFileError,
    PromptPart,
    ShownAs,
    VisionInputs,
    VisionSpan,
)
from edge_vlm_ros.families.config_file import ConfigFile
from edge_vlm_ros.families.model_folder import check_tile_size, normaliser_of, stop_tokens_of
from edge_vlm_ros.families.options import FamilyOptions, ResizeFilter
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.text import (
    CHATML,
    CHATML_TIGHT,
    INTERNLM2,
    PHI3,
    ChatTemplate,
    Piece,
    Special,
    Tokenizer,
    encode_pieces,
)
from edge_vlm_ros.vision import (
    Normaliser,
    Tiling,
    dynamic_tiles,
    pixels_for_grid,
    resize_exact,
    resize_fast,
)

IMAGE_START = Special('<img>')
IMAGE_END = Special('</img>')
PLACEHOLDER = '<IMG_CONTEXT>'

_RESIZERS = {'exact': resize_exact, 'fast': resize_fast}


@dataclass(frozen=True, slots=True)
class ConversationForm:
    """What a template's name in config.json stands for.

    Attributes:
        template: The pieces between the words.
        system_text: Used unless the question brings its own; '' = none.
    """

    template: ChatTemplate
    system_text: str


@dataclass(frozen=True, slots=True)
class Patches:
    """How a tile becomes visual tokens.

    Attributes:
        px: Side of a patch.
        ratio: What the pixel shuffle leaves of a row of patches.
    """

    px: int
    ratio: float

    def tokens(self, tile_px: int) -> int | None:
        """Count the tokens of a tile; None = patches do not divide it evenly."""
        side = tile_px / self.px * self.ratio
        return None if tile_px % self.px or side != int(side) else int(side) ** 2


@dataclass(frozen=True, slots=True)
class InternVlSettings:
    """What one model's files say.

    Attributes:
        form: Template and default system text.
        tiling: How a frame that stands alone becomes tiles.
        tokens_per_tile: Placeholders that one tile takes.
        normalise: With the model's mean and deviation.
        stop_tokens: Ids that end an answer, beside the template's own.
        patches: Of a tile; None = the engine's tiles must have the size of `tiling`.
    """

    form: ConversationForm
    tiling: Tiling
    tokens_per_tile: int
    normalise: Normaliser
    stop_tokens: frozenset[int] = frozenset()
    patches: Patches | None = None


# The system texts the published models were tuned with: content of the models, not ours.
_SYSTEM_OF_2 = '你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。'  # noqa: E501, RUF001
_FORMS = {
    'internvl2_5': ConversationForm(
        CHATML,
        '你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。',  # noqa: RUF001
    ),
    'Hermes-2': ConversationForm(CHATML_TIGHT, _SYSTEM_OF_2),
    'internlm2-chat': ConversationForm(INTERNLM2, _SYSTEM_OF_2),
    'phi3-chat': ConversationForm(PHI3, _SYSTEM_OF_2),
}
_FORM_OF_CONVERTED = ConversationForm(CHATML, '')
"""Of folders in transformers' own layout: their chat_template adds no system text."""


class InternVlFamily(TemplatedFamily):
    """Preprocessing, prompt form and stop rule of one InternVL model.

    Use from one thread at a time.

    Args:
        tokenizer: The model's.
        settings: What the model's files say.
        resize: Which filter.

    Raises:
        ModelFileError: The tokenizer lacks a token that the prompt needs.
    """

    def __init__(
        self, tokenizer: Tokenizer, settings: InternVlSettings, resize: ResizeFilter = 'exact'
    ) -> None:
        super().__init__(tokenizer, settings.form.template, settings.stop_tokens)
        self._settings = settings
        self._resize = _RESIZERS[resize]
        self._placeholder = tokenizer.token_id(PLACEHOLDER)
        encode_pieces(tokenizer, (IMAGE_START, IMAGE_END))  # both must be there

    @staticmethod
    def load(
        folder: Path,
        options: FamilyOptions = FamilyOptions(),  # noqa: B008 (frozen)
    ) -> InternVlFamily:
        """Read everything from a model folder.

        Args:
            folder: With config.json, preprocessor_config.json, the tokenizer's files and, where
                the model has one, generation_config.json.
            options: What may be chosen.

        Raises:
            ModelFileError: A file is missing, damaged, or says what this family cannot do.
        """
        config = ConfigFile.read(folder / 'config.json')
        preprocessor = ConfigFile.read(folder / 'preprocessor_config.json')
        generation = ConfigFile.read(folder / 'generation_config.json', may_be_missing=True)
        tokenizer = Tokenizer.load(folder)
        settings = InternVlSettings(
            _form_of(config),
            _tiling_of(config, preprocessor, options),
            _tokens_per_tile(config),
            normaliser_of(preprocessor),
            stop_tokens_of(tokenizer, _language_sections(config), generation),
            _patches(config),
        )
        return InternVlFamily(tokenizer, settings, options.resize)

    @property
    def settings(self) -> InternVlSettings:
        """What the model's files say."""
        return self._settings

    @property
    def frames_per_input(self) -> int:
        """How many frames of a clip make one input: each frame is an image of its own."""
        return 1

    def fit(self, limits: EngineLimits) -> None:
        """Take over the size of a tile; how many there are, `FamilyOptions.max_tiles` says.

        A vision tower may be compiled for smaller tiles than config.json says (364 px for the
        AX630C, where it says 448), and then the file knows.

        Raises:
            ModelFileError: The engine's vision tower takes tiles of another size, and patches do
                not divide that evenly.
        """
        settings, tile_px = self._settings, limits.tile_px
        if tile_px in {0, settings.tiling.tile_px}:
            return
        tokens = settings.patches.tokens(tile_px) if settings.patches else None
        if tokens is None:
            check_tile_size(settings.tiling.tile_px, limits)
            return
        tiling = replace(settings.tiling, tile_px=tile_px)
        self._settings = replace(settings, tiling=tiling, tokens_per_tile=tokens)

    def preprocess(self, frame: Frame, shown_as: ShownAs = ShownAs.ALONE) -> VisionInputs:
        """Resize, tile and normalise one frame as the model was trained.

        Args:
            frame: Left unchanged.
            shown_as: AMONG_OTHERS it gets one tile, as the frames of a video do in the model
                cards.

        Returns:
            pixels float32 (tiles, 3, tile_px, tile_px), the thumbnail last where there is more
            than one tile; grid (tiles, rows, columns).

        Raises:
            BadImageError: A side of 0.
        """
        tiling = self._settings.tiling
        if shown_as is not ShownAs.ALONE:
            tiling = Tiling(tiling.tile_px, max_tiles=1)
        height, width = frame.pixels.shape[:2]
        grid = dynamic_tiles(width, height, tiling)
        pixels = pixels_for_grid(
            frame.pixels, grid, tiling.tile_px, self._settings.normalise, self._resize
        )
        shape = (grid.tiles, grid.rows, grid.columns)
        tokens = grid.tiles * self._settings.tokens_per_tile
        return VisionInputs(pixels, shape, tokens, images=grid.tiles)

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
        opening = self._template.opening(system_prompt or self._settings.form.system_text)
        return self._render(opening, images, first_image=0, position=0)

    def _render(
        self,
        pieces: Sequence[Piece],
        images: Sequence[VisionInputs],
        *,
        first_image: int,
        position: int,
    ) -> PromptPart:
        """Render pieces, then images."""
        ids: list[int] = []
        spans: list[VisionSpan] = []
        before = list(pieces)
        for number, image in enumerate(images):
            label = [f'Frame{number + 1}: '] if len(images) > 1 else []
            ids += encode_pieces(self._tokenizer, [*before, *label, IMAGE_START])
            spans.append(VisionSpan(first_image + number, len(ids), len(ids) + image.tokens))
            ids += [self._placeholder] * image.tokens
            before = [IMAGE_END, '\n']
        ids += encode_pieces(self._tokenizer, before)
        stop = position + len(ids)
        return PromptPart(
            tokens=np.array(ids, dtype=np.int64),
            positions=np.arange(position, stop, dtype=np.int64),
            next_position=stop,
            spans=tuple(spans),
        )


def _form_of(config: ConfigFile) -> ConversationForm:
    name = config.text('template')
    if name is None and config.text('model_type') == 'internvl':
        form = _FORM_OF_CONVERTED
    elif name in _FORMS:
        form = _FORMS[name]
    else:
        raise config.error('template', f'one of {", ".join(_FORMS)}')
    own = config.text('system_message')
    return form if own is None else ConversationForm(form.template, own)


def _tiling_of(config: ConfigFile, preprocessor: ConfigFile, options: FamilyOptions) -> Tiling:
    """Read the tiling: from config.json, or from the preprocessor of transformers' own layout.

    Defaults are those of InternVLChatConfig.
    """
    if config.text('model_type') == 'internvl':
        is_tiled, use_thumbnail = True, True
        fewest = preprocessor.count('min_patches', 1)
        most = preprocessor.count('max_patches', 12)
    else:
        is_tiled = config.flag('dynamic_image_size', default=False)
        use_thumbnail = config.flag('use_thumbnail', default=False)
        fewest = config.count('min_dynamic_patch', 1)
        most = config.count('max_dynamic_patch', 6)
    if fewest > most:
        raise ModelFileError(f'{config.path}: at least {fewest} tiles, but at most {most}')
    most = most if is_tiled else 1
    most = min(most, options.max_tiles or most)
    return Tiling(_tile_px(config), min(fewest, most), most, use_thumbnail)


def _tile_px(config: ConfigFile) -> int:
    key = 'force_image_size'
    forced = config.values.get(key)
    return config.count(key) if forced else config.section('vision_config').count('image_size')


def _patches(config: ConfigFile) -> Patches:
    patch_px = config.section('vision_config').count('patch_size')
    return Patches(patch_px, config.fraction('downsample_ratio', 0.5))


def _tokens_per_tile(config: ConfigFile) -> int:
    """Return placeholders per tile: patches, shrunk by the pixel shuffle on either side."""
    tile_px, patches = _tile_px(config), _patches(config)
    tokens = patches.tokens(tile_px)
    if tokens is None:
        found = f'tiles of {tile_px} px, patches of {patches.px} px, ratio {patches.ratio}'
        raise ModelFileError(f'{config.path}: {found} give no whole number of visual tokens')
    return tokens


def _language_sections(config: ConfigFile) -> tuple[ConfigFile, ...]:
    return config, config.section('llm_config'), config.section('text_config')
