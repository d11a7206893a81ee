"""Rendered frames with their truth, and batches of them with small changes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import torch

from edge_vlm_ros.demo.world import CLIP_FRAMES, COLOURS, SHAPES
from tools.demo_model.scenes import MAP_SIDE, Seen

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Things = list['Seen | None']

MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32) * 255
STD: Final = np.array([0.229, 0.224, 0.225], np.float32) * 255
MIRRORED: Final = {
    'left': 'right',
    'right': 'left',
    'turn left': 'turn right',
    'turn right': 'turn left',
}
REVERSED: Final = {**MIRRORED, 'closer': 'away', 'away': 'closer'}
_HALF_VIEW: Final = float(np.tan(np.radians(31.0)))
_CELL_PX: Final = 7


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """One rendered frame: where its pixels are, and what it shows."""

    shard: int
    row: int
    things: Things
    decided: bool


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """One rendered clip: its frames, its motion, and the number of the thing that moves."""

    frames: tuple[int, ...]
    motion: str
    who: int


class FrameStore:
    """All rendered shards of a folder, read from disk as needed."""

    def __init__(self, folder: Path) -> None:
        self.frames: list[FrameRecord] = []
        self.clips: list[ClipRecord] = []
        self._pixels: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]] = []
        self._maps: list[NDArray[np.uint8]] = []
        for path in sorted(folder.glob('*.json')):
            self._read(path)
        self.usable = [i for i, f in enumerate(self.frames) if f.decided]

    def _read(self, path: Path) -> None:
        shard = len(self._pixels)
        stem = str(path.with_suffix(''))
        bicubic, area, maps = (
            np.load(f'{stem}_{kind}.npy', mmap_mode='r') for kind in ('bicubic', 'area', 'maps')
        )
        self._pixels.append((bicubic, area))
        self._maps.append(np.array(maps))
        truth = json.loads(path.read_text())
        is_clip = path.name.startswith('clips')
        first = len(self.frames)
        for row, view in enumerate(
            [v for clip in truth for v in clip['frames']] if is_clip else truth
        ):
            things: Things = [None if s is None else Seen(*s) for s in view['seen']]
            decided = all(t is not None or o for t, o in zip(things, view['outside'], strict=True))
            self.frames.append(FrameRecord(shard, row, things, decided))
        if is_clip:
            for i, clip in enumerate(truth):
                at = first + CLIP_FRAMES * i
                frames = tuple(range(at, at + CLIP_FRAMES))
                self.clips.append(ClipRecord(frames, clip['motion'], clip['who']))

    def pixels(self, frame: int, *, area: bool) -> NDArray[np.uint8]:
        """Return one frame, (112, 112, 3), shrunk by area averaging or by PIL bicubic."""
        record = self.frames[frame]
        found: NDArray[np.uint8] = self._pixels[record.shard][area][record.row]
        return found

    def instances(self, frame: int) -> NDArray[np.uint8]:
        """Return the instance map of one frame, (16, 16)."""
        record = self.frames[frame]
        found: NDArray[np.uint8] = self._maps[record.shard][record.row]
        return found


@dataclass(slots=True)
class Picture:
    """One frame on its way into a batch: float32 pixels 0..255, things and instance map."""

    pixels: NDArray[np.float32]
    things: Things
    instances: NDArray[np.uint8]


def mirror(things: Sequence[Seen | None]) -> Things:
    """Return the things as seen in a mirror."""
    return [t and t._replace(cx=1 - t.cx) for t in things]


def slide(things: Sequence[Seen | None], by: float) -> Things:
    """Return the things moved sideways in the image, with the distances that this means."""

    def moved(thing: Seen) -> Seen:
        old, new = (np.hypot(1, (2 * x - 1) * _HALF_VIEW) for x in (thing.cx, thing.cx + by))
        return thing._replace(cx=thing.cx + by, distance=float(thing.distance * new / old))

    return [t and moved(t) for t in things]


def blend(store: FrameStore, frame: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return pixels shrunk in one of the two ways, or between them."""
    pick = rng.random()
    if pick < 0.6:
        return store.pixels(frame, area=pick < 0.25).astype(np.float32)
    area = store.pixels(frame, area=True).astype(np.float32)
    bicubic = store.pixels(frame, area=False).astype(np.float32)
    blended: NDArray[np.float32] = area + np.float32(rng.uniform(-0.2, 1.2)) * (bicubic - area)
    return blended


def vary_colour(pixels: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Vary gain, white balance, offset and noise a little."""
    gain = (rng.uniform(0.82, 1.18) * rng.uniform(0.96, 1.04, 3)).astype(np.float32)
    pixels = pixels * gain + np.float32(rng.uniform(-10, 10))
    if rng.random() < 0.3:
        noise = rng.standard_normal(pixels.shape, dtype=np.float32)
        pixels = pixels + np.float32(rng.uniform(0, 4)) * noise
    varied: NDArray[np.float32] = np.clip(pixels, 0, 255)
    return varied


def picture(store: FrameStore, frame: int, rng: np.random.Generator) -> Picture:
    """Return one frame with small random changes; needs a decided frame."""
    pixels, things = blend(store, frame, rng), store.frames[frame].things
    instances = store.instances(frame)
    if rng.random() < 0.5:
        pixels, instances, things = pixels[:, ::-1], instances[:, ::-1], mirror(things)
    there = [t for t in things if t is not None]
    if rng.random() < 0.6 and len(there) == len(things):
        low = min((t.cx - t.w / 2 for t in there), default=1.0)
        high = max((t.cx + t.w / 2 for t in there), default=0.0)
        steps = int(rng.integers(-min(2, int(low * MAP_SIDE)), 1 + min(2, int((1 - high) * 16))))
        if steps:
            side = pixels.shape[1]
            columns = np.clip(np.arange(side) - steps * _CELL_PX, 0, side - 1)
            cells = np.clip(np.arange(MAP_SIDE) - steps, 0, MAP_SIDE - 1)
            pixels, instances = pixels[:, columns], instances[:, cells]
            things = slide(things, steps / MAP_SIDE)
    return Picture(vary_colour(pixels, rng), things, instances)


def clip_pixels(
    store: FrameStore, clip: ClipRecord, rng: np.random.Generator, *, back: bool, flip: bool
) -> NDArray[np.float32]:
    """Return the frames of a clip, (8, 112, 112, 3), with one change for all of them."""
    frames = clip.frames[::-1] if back else clip.frames
    area = bool(rng.random() < 0.4)
    pixels = np.stack([store.pixels(f, area=area) for f in frames]).astype(np.float32)
    return vary_colour(pixels[:, :, ::-1] if flip else pixels, rng)


class TurnedClip(NamedTuple):
    """The truth of a clip as it is shown: motion, things of each frame, which are decided."""

    motion: str
    things: list[Things]
    decided: list[bool]


def turned_clip(store: FrameStore, clip: ClipRecord, *, back: bool, flip: bool) -> TurnedClip:
    """Return the truth of a clip played back or mirrored."""
    motion = clip.motion
    frames = clip.frames[::-1] if back else clip.frames
    if back:
        motion = REVERSED.get(motion, motion)
    if flip:
        motion = MIRRORED.get(motion, motion)
    things = [store.frames[f].things for f in frames]
    if flip:
        things = [mirror(t) for t in things]
    return TurnedClip(motion, things, [store.frames[f].decided for f in frames])


def normalise(pixels: NDArray[np.float32]) -> torch.Tensor:
    """Return (n, 3, px, px) from pixels 0..255."""
    return torch.from_numpy(np.ascontiguousarray(((pixels - MEAN) / STD).transpose(0, 3, 1, 2)))


def repaint(things: Sequence[Sequence[Seen | None]], rng: np.random.Generator) -> list[Things]:
    """Swap colours and shapes all round, the same way in each frame."""
    colours = {c: COLOURS[i] for c, i in zip(COLOURS, rng.permutation(len(COLOURS)), strict=True)}
    shapes = {s: SHAPES[i] for s, i in zip(SHAPES, rng.permutation(len(SHAPES)), strict=True)}
    return [
        [t and t._replace(colour=colours[t.colour], shape=shapes[t.shape]) for t in row]
        for row in things
    ]


def map_labels(pictures: Sequence[Picture]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return colour and shape of each map cell, (n, 64 patches, 4); 0 for none, -1 unknown."""
    labels = np.zeros((2, len(pictures), MAP_SIDE, MAP_SIDE), np.int64)
    for i, p in enumerate(pictures):
        table = np.zeros((2, len(p.things) + 1), np.int64)
        for j, thing in enumerate(p.things):
            if thing is None:
                table[:, j + 1] = -1
            else:
                table[0, j + 1] = 1 + COLOURS.index(thing.colour)
                table[1, j + 1] = 1 + SHAPES.index(thing.shape)
        labels[:, i] = table[:, p.instances]
    half = MAP_SIDE // 2
    cut = labels.reshape(2, len(pictures), half, 2, half, 2).transpose(0, 1, 2, 4, 3, 5)
    flat = torch.from_numpy(np.ascontiguousarray(cut).reshape(2, len(pictures), half * half, 4))
    return flat[0], flat[1]
