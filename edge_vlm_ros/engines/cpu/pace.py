"""How much of a question this machine bears before its first word: measured when a model loads.

A tile is a run of the vision tower and its rows of the prompt. Of a vision model of 0.25 billion
parameters that is a second of one core, so what a model was trained with, 13 tiles a frame, may be
a quarter of a minute. A default must not be that; whoever asks for more gets it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

FIRST_WORD_S: Final = 2.0
"""A default shows no more than makes the first word come in about this time."""
_WORDS: Final = 32
"""Tokens of a short question and what stands around it."""
_MOST: Final = 64
_ENOUGH_S: Final = 0.1
_MANY_CORES: Final = 4
_HARDLY: Final = 1.1
_RUNS: Final = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """What one tile costs here.

    Attributes:
        tile_s: A run of the vision tower, seconds.
        token_s: A token of a prompt, seconds.
        tile_tokens: Rows of one tile.
    """

    patches_per_frame: ClassVar[int] = 0

    tile_s: float
    token_s: float
    tile_tokens: int

    def first_word_s(self, tiles: int) -> float:
        """Return about when the first word comes after a short question about so many tiles."""
        return tiles * self.tile_s + (tiles * self.tile_tokens + _WORDS) * self.token_s

    @property
    def runs(self) -> int:
        """Tiles that one question may show without a long wait; 1 at least."""
        each_s = self.first_word_s(1) - self.first_word_s(0)
        left_s = FIRST_WORD_S - self.first_word_s(0)
        fitting = _MOST if each_s * _MOST <= left_s else int(left_s / each_s)
        return max(fitting, 1)

    @property
    def tiles_per_frame(self) -> int:
        """Tiles that a frame alone may be cut into; a picture of the whole comes beside them."""
        return max(self.runs - 1, 1)

    @property
    def frames_per_question(self) -> int:
        """Frames of a clip, each of one tile."""
        return self.runs

    def __str__(self) -> str:
        return (
            f'a tile takes {self.tile_s * 1e3:.1f} ms, a token of the prompt '
            f'{self.token_s * 1e3:.2f} ms, the first word with one tile about '
            f'{self.first_word_s(1):.1f} s. Unless more is asked for: tiles of a frame alone '
            f'{self.tiles_per_frame}, frames of a clip {self.runs}'
        )


_USUAL_PATCHES: Final = (1024, 512, 256)
"""What an image may have by default; few steps, so that one machine shows the same pixels at every
start. 256, 128 and 64 tokens of Qwen2-VL: with fewer it would see little."""
_BEARABLE_S: Final = 4.0
"""Until the first word about an image. Models that see in patches are large: 2 billion parameters
make a second of the question alone."""
_CLIP_FRAMES: Final = 8
"""Of a clip, which cost as much as one image alone: pairs of a quarter of its size."""


@dataclass(frozen=True, slots=True)
class PatchPace:
    """What one patch costs here.

    Attributes:
        patch_s: Of a run of the vision tower, seconds.
        token_s: A token of a prompt, seconds.
        patches_per_token: Of a block.
    """

    tiles_per_frame: ClassVar[int] = 0
    frames_per_question: ClassVar[int] = _CLIP_FRAMES

    patch_s: float
    token_s: float
    patches_per_token: int

    def first_word_s(self, patches: int) -> float:
        """Return about when the first word comes after a short question about one image."""
        tokens = patches // self.patches_per_token + _WORDS
        return patches * self.patch_s + tokens * self.token_s

    @property
    def patches_per_frame(self) -> int:
        """Patches that an image alone may have."""
        bearable = (
            patches for patches in _USUAL_PATCHES if self.first_word_s(patches) <= _BEARABLE_S
        )
        return next(bearable, _USUAL_PATCHES[-1])

    def __str__(self) -> str:
        most = self.patches_per_frame
        tokens = most // self.patches_per_token
        return (
            f'a patch takes {self.patch_s * 1e3:.2f} ms, a token of the prompt '
            f'{self.token_s * 1e3:.2f} ms: at most {most} patches ({tokens} tokens) for an image '
            f'alone unless option max_pixels asks for more, the first word after about '
            f'{self.first_word_s(most):.1f} s'
        )


def choose_threads(cores: int, tile_s: Callable[[int], float]) -> int:
    """Return the threads of an operator: of many cores half, where all are hardly faster.

    Half of them may be the same cores twice, or slow ones; what is left to the cameras and the
    middleware costs nothing then. Few cores are all used: threads that wait do not spin.

    Args:
        cores: That this process may run on.
        tile_s: Measures a tile with so many threads.
    """
    if cores < _MANY_CORES:
        return cores
    half = cores // 2
    return half if tile_s(half) <= _HARDLY * tile_s(cores) else cores


def fastest_s(run: Callable[[], object]) -> float:
    """Return what a run takes, seconds: the least of a few, or of one that takes long.

    What else the machine does, and the first run's own set-up, make runs slower, never faster.
    """
    best = float('inf')
    for _ in range(_RUNS):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
        if best > _ENOUGH_S:
            break
    return best
