"""How many tiles one frame may be cut into: what the user asked for, or what the engine bears.

A model is trained with up to 12 tiles a frame, each a run of the vision tower and its tokens of
the prompt. On an edge chip that may be a wait of seconds, or more than its compiled graphs take;
a default must be neither.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_vlm_ros.core import BadRequestError, EngineLimits, ErrorCode

_QUESTION_TOKENS = 64
"""Room that a default leaves for the question, and again for the answer."""


_LABEL_TOKENS = 16
"""Room for what is written around each of several images."""


@dataclass(frozen=True, slots=True)
class TileCosts:
    """What tiles cost with one model.

    Attributes:
        tiles: Most that one frame is cut into, its thumbnail not counted; each is an image of its
            own to the engine.
        thumbnails: Pictures of the whole frame beside more than one tile: 0 or 1.
        tile_tokens: Placeholders of one tile or thumbnail.
        text_tokens: Of a prompt with one frame and next to no question, placeholders aside.
    """

    tiles: int
    thumbnails: int
    tile_tokens: int
    text_tokens: int

    def share(self, images: int, limits: EngineLimits) -> int:
        """Count the tiles of each of several images that share those of one, as in training.

        Fewer than that where so many images of them are more than the engine takes; 1 at least.
        Source: OpenGVLab/InternVL, internvl_chat_finetune.py, multi_modal_multi_image_get_item.

        Args:
            images: In one prompt.
            limits: The engine's.
        """
        prompt = min(limits.longest_prompt, limits.context_tokens - _QUESTION_TOKENS)
        room = prompt - _QUESTION_TOKENS - self.text_tokens - images * _LABEL_TOKENS
        runs = limits.max_images or images * self.images(self.tiles)
        fitting = [
            tiles
            for tiles in range(2, self.tiles // images + 1)
            if images * self.images(tiles) <= runs
            and images * self.images(tiles) * self.tile_tokens <= room
        ]
        return max(fitting, default=1)

    def images(self, tiles: int) -> int:
        """Count the runs of the vision tower for a frame of so many tiles."""
        return tiles + (self.thumbnails if tiles > 1 else 0)

    def tokens(self, tiles: int) -> int:
        """Count the tokens of a prompt with one frame of so many tiles."""
        return self.text_tokens + self.images(tiles) * self.tile_tokens

    def most(self, limits: EngineLimits, spare_tokens: int = 0) -> int:
        """Count the tiles of one frame that an engine takes; 1 at least.

        Args:
            limits: The engine's.
            spare_tokens: Left free for the question, and again for the answer.
        """
        prompt = min(limits.longest_prompt, limits.context_tokens - spare_tokens) - spare_tokens
        images = limits.max_images or self.images(self.tiles)
        fitting = [
            tiles
            for tiles in range(2, self.tiles + 1)
            if self.images(tiles) <= images and self.tokens(tiles) <= prompt
        ]
        return max(fitting, default=1)


def choose_tiles(costs: TileCosts, asked: int, limits: EngineLimits) -> int:
    """Return the most tiles that one frame is to be cut into on an engine.

    Args:
        costs: The model's, with at most `asked` tiles.
        asked: What the user wants; 0 = nothing said.
        limits: The engine's.

    Raises:
        BadRequestError: The user wants more than the engine takes.
    """
    if not asked:
        fitting = costs.most(limits, _QUESTION_TOKENS)
        return min(limits.tiles_per_frame or costs.tiles, fitting, costs.tiles)
    most = costs.most(limits)
    if costs.tiles > most:
        raise BadRequestError(
            f'max_tiles {asked}: one frame would make up to {costs.images(costs.tiles)} images '
            f'and a prompt of {costs.tokens(costs.tiles)} tokens; the model takes '
            f'{limits.max_images or "any number of"} images and '
            f'{min(limits.longest_prompt, limits.context_tokens)} tokens: '
            f'at most max_tiles {most}',
            ErrorCode.UNSUPPORTED_OPTION,
        )
    return costs.tiles
