"""InternVL 2, 2.5, 3 and 3.5, and the demo model: tiles, features spliced in at placeholders.

A frame stands in the prompt as `<img>`, its placeholders, `</img>` and a line break. The moments
of a clip have `Frame1: `, `Frame2: `, ... before them, and so has a frame shown among others while
it is the only one, as in a video of one frame: then a prompt grows frame by frame. Several images,
each of another camera, have `Image-1: `, `Image-2: `, ... before them and share the tiles of one.
Frames come before the question. What stands around that depends on the language model, and
config.json names it (`template`): ChatML in one of three forms, or Phi-3's.

InternVL3.5 is InternVL3's form with another language model inside (Qwen3). It thinks before it
answers only if a system text asks it to, which the published default does not.

Source: OpenGVLab/InternVL, conversation.py (templates) and the model cards (several images, frames
of a video, the system text for thinking).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edge_vlm_ros.core import (
    ConfigFile,
    EngineLimits,
    Frame,
    ModelConfig,
    ModelFileError,
    Options,
    PromptPart,
    ShownAs,
    VisionInputs,
    VisionSpan,
    count,
    text_part,
)
from edge_vlm_ros.families.grounding import Grounding
from edge_vlm_ros.families.model_folder import check_tile_size, normaliser_of, stop_tokens_of
from edge_vlm_ros.families.options import ResizeFilter
from edge_vlm_ros.families.templated import TemplatedFamily
from edge_vlm_ros.families.tile_budget import TileCosts, choose_tiles
from edge_vlm_ros.text import (
    CHATML,
    CHATML_TIGHT,
    INTERNLM2,
    PHI3,
    ChatTemplate,
    Piece,
    PlaceForm,
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
_SHORT_QUESTION = 'What?'


@dataclass(frozen=True, slots=True)
class InternVlOptions(Options):
    """What a user may choose.

    Attributes:
        max_tiles: Most tiles that one frame is cut into; 0 = as many as the model's files say and
            the engine bears without a long wait. Every tile costs a run of the vision tower and
            its share of context. Images of several cameras in one question share them.
        resize: Which filter.
    """

    max_tiles: int = count()
    resize: ResizeFilter = 'exact'


OPTIONS = InternVlOptions


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


@dataclass(frozen=True, slots=True)
class InternVlSettings:
    """What one model's files and the options say.

    Attributes:
        tokenizer: The model's.
        options: The user's.
        form: Template and default system text.
        tiling: How a frame that stands alone becomes tiles.
        patches: Of a tile.
        tokens_per_tile: Placeholders that one tile takes.
        normalise: With the model's mean and deviation.
        placeholder: Id that stands for a row of features.
        stop_tokens: Ids that end an answer.
        shares: Most tiles of each of 1, 2, ... images; of more, 1.
    """

    tokenizer: Tokenizer = field(repr=False)
    options: InternVlOptions
    form: ConversationForm
    tiling: Tiling
    patches: Patches
    tokens_per_tile: int
    normalise: Normaliser
    placeholder: int
    stop_tokens: frozenset[int]
    shares: tuple[int, ...] = ()

    def bound_by(self, limits: EngineLimits) -> InternVlFamily:
        """Make the family with the engine's size of a tile, and as many tiles as it bears.

        Raises:
            ModelFileError: The engine's vision tower takes tiles of another size, and patches do
                not divide that evenly.
            BadRequestError: The user asked for more tiles than the engine takes.
        """
        fitted = self._with_tiles_of(limits)
        most = choose_tiles(fitted.tile_costs(), self.options.max_tiles, limits)
        tiling = replace(
            fitted.tiling, max_tiles=most, min_tiles=min(fitted.tiling.min_tiles, most)
        )
        fitted = replace(fitted, tiling=tiling)
        costs = fitted.tile_costs()
        shares = tuple(costs.share(images, limits) for images in range(2, most + 1))
        return InternVlFamily(replace(fitted, shares=(most, *shares)))

    def tile_costs(self) -> TileCosts:
        """Say what the tiles of one frame cost."""
        template = self.form.template
        runs: tuple[Sequence[Piece], ...] = (
            (*template.opening(self.form.system_text), IMAGE_START),
            (IMAGE_END, '\n'),
            (_SHORT_QUESTION, *template.closing()),
        )
        return TileCosts(
            tiles=self.tiling.max_tiles,
            thumbnails=int(self.tiling.use_thumbnail),
            tile_tokens=self.tokens_per_tile,
            text_tokens=sum(len(encode_pieces(self.tokenizer, pieces)) for pieces in runs),
        )

    def _with_tiles_of(self, limits: EngineLimits) -> InternVlSettings:
        """Take over the size of a tile.

        A vision tower may be compiled for smaller tiles than config.json says (364 px for the
        AX630C, where it says 448), and then the file knows.
        """
        tile_px = limits.tile_px
        if tile_px in {0, self.tiling.tile_px}:
            return self
        tokens = self.patches.tokens(tile_px)
        if tokens is None:
            check_tile_size(self.tiling.tile_px, limits)
            return self
        tiling = replace(self.tiling, tile_px=tile_px)
        return replace(self, tiling=tiling, tokens_per_tile=tokens)


def read(config: ModelConfig, options: InternVlOptions) -> InternVlSettings:
    """Read what a model's files say; see `families.read_family`."""
    tokenizer = Tokenizer.load(config.folder)
    form = _form_of(config.model)
    encode_pieces(tokenizer, (IMAGE_START, IMAGE_END))  # both must be there
    return InternVlSettings(
        tokenizer=tokenizer,
        options=options,
        form=form,
        tiling=_tiling_of(config, options.max_tiles),
        patches=_patches(config),
        tokens_per_tile=_tokens_per_tile(config),
        normalise=normaliser_of(config.preprocessor),
        placeholder=tokenizer.token_id(PLACEHOLDER),
        stop_tokens=stop_tokens_of(tokenizer, config, form.template.stop),
    )


class InternVlFamily(TemplatedFamily):
    """Preprocessing, prompt form and stop rule of one InternVL model.

    Use from one thread at a time.

    Args:
        settings: Within what the engine takes.
    """

    def __init__(self, settings: InternVlSettings) -> None:
        form, stop_tokens = settings.form, settings.stop_tokens
        super().__init__(settings.tokenizer, form.template, stop_tokens, form.system_text)
        self.settings = settings
        self._resize = _RESIZERS[settings.options.resize]

    @property
    def grounding(self) -> Grounding:
        """How its models name places: thousandths of the frame in `<ref>` and `<box>`."""
        return Grounding(PlaceForm.REF_BOX)

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
        tiling = self.settings.tiling
        if shown_as is not ShownAs.ALONE:
            tiling = Tiling(tiling.tile_px, max_tiles=1)
        return self._cut(frame, tiling, shown_as)

    @property
    def shares_detail(self) -> bool:
        """Whether images of several cameras are shown otherwise than a clip: they are."""
        return True

    def preprocess_one_of(self, frame: Frame, images: int) -> VisionInputs:
        """Resize, tile and normalise one of several images, with its share of the tiles.

        Raises:
            BadImageError: A side of 0.
        """
        tiling, shares = self.settings.tiling, self.settings.shares
        most = shares[images - 1] if images <= len(shares) else 1
        tiling = replace(tiling, max_tiles=most, min_tiles=min(tiling.min_tiles, most))
        return self._cut(frame, tiling, ShownAs.ONE_OF_IMAGES)

    def _cut(self, frame: Frame, tiling: Tiling, shown_as: ShownAs) -> VisionInputs:
        height, width = frame.pixels.shape[:2]
        grid = dynamic_tiles(width, height, tiling)
        pixels = pixels_for_grid(
            frame.pixels, grid, tiling.tile_px, self.settings.normalise, self._resize
        )
        shape = (grid.tiles, grid.rows, grid.columns)
        tokens = grid.tiles * self.settings.tokens_per_tile
        return VisionInputs(pixels, shape, tokens, images=grid.tiles, shown_as=shown_as)

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
            label = _label(image.shown_as, number, len(images))
            ids += encode_pieces(self._tokenizer, [*before, *label, IMAGE_START])
            spans.append(VisionSpan(first_image + number, len(ids), len(ids) + image.tokens))
            ids += [self.settings.placeholder] * image.tokens
            before = [IMAGE_END, '\n']
        ids += encode_pieces(self._tokenizer, before)
        return replace(text_part(ids, position), spans=tuple(spans))


def _label(shown_as: ShownAs, number: int, of: int) -> list[str]:
    """Return what stands before an image: as in the model cards, counted from 1."""
    if shown_as in {ShownAs.AMONG_OTHERS, ShownAs.VIDEO}:
        return [f'Frame{number + 1}: ']
    return [f'Image-{number + 1}: '] if of > 1 or shown_as is ShownAs.ONE_OF_IMAGES else []


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


def _tiling_of(config: ModelConfig, max_tiles: int) -> Tiling:
    """Read the tiling: from config.json, or from the preprocessor of transformers' own layout.

    Defaults are those of InternVLChatConfig.
    """
    model = config.model
    if config.model_type == 'internvl':
        is_tiled, use_thumbnail = True, True
        fewest = config.preprocessor.count('min_patches', 1)
        most = config.preprocessor.count('max_patches', 12)
    else:
        is_tiled = model.flag('dynamic_image_size', default=False)
        use_thumbnail = model.flag('use_thumbnail', default=False)
        fewest = model.count('min_dynamic_patch', 1)
        most = model.count('max_dynamic_patch', 6)
    if fewest > most:
        raise ModelFileError(f'{model.path}: at least {fewest} tiles, but at most {most}')
    most = most if is_tiled else 1
    most = min(most, max_tiles or most)
    return Tiling(_tile_px(config), min(fewest, most), most, use_thumbnail)


def _tile_px(config: ModelConfig) -> int:
    key = 'force_image_size'
    is_forced = bool(config.model.values.get(key))
    return config.model.count(key) if is_forced else config.vision.count('image_size')


def _patches(config: ModelConfig) -> Patches:
    patch_px = config.vision.count('patch_size')
    return Patches(patch_px, config.model.fraction('downsample_ratio', 0.5))


def _tokens_per_tile(config: ModelConfig) -> int:
    """Return placeholders per tile: patches, shrunk by the pixel shuffle on either side."""
    tile_px, patches = _tile_px(config), _patches(config)
    tokens = patches.tokens(tile_px)
    if tokens is None:
        found = f'tiles of {tile_px} px, patches of {patches.px} px, ratio {patches.ratio}'
        raise ModelFileError(f'{config.model.path}: {found} give no whole number of visual tokens')
    return tokens
