"""What training draws from: dialogues, coded scenes and rendered scenes, ready as batches."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge_vlm_ros.demo.world import CLIP_FRAMES
from tools.demo_model import codes, data
from tools.demo_model.asker import STILL_KINDS, Asker, Dialogue
from tools.demo_model.packing import Batch, Packer
from tools.demo_model.scenes import Seen
from tools.demo_model.wordings import OUTSIDE

# How often each kind is asked, the hard ones more; long ones are packed apart from short ones.
SHORT: Final = {
    'existence': 1.4,
    'count': 2.0,
    'colour': 0.5,
    'identity': 0.6,
    'place': 1.0,
    'relation': 2.6,
    'nearest': 1.2,
    'path': 1.3,
    'absent': 1.4,
}
LONG: Final = {'describe': 1.0, 'follow-up': 0.5, 'outside': 0.25, 'path': 0.1, 'place': 0.1}
SHORT_WORDS: Final = 16  # longer ones of the short kinds would pad all others


def there(things: Iterable[Seen | None]) -> list[Seen]:
    """Return the things that are in view."""
    return [t for t in things if t is not None]


class Teacher:
    """Draws dialogues about scenes."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.asker = Asker(self._rng)

    def one(self, things: list[Seen], kinds: Mapping[str, float], *, limit: int = 99) -> Dialogue:
        """Return a dialogue of one of these kinds, each with its weight, of so many words."""
        while True:
            kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
            dialogue = self.asker.ask(things, kind)
            if (
                dialogue is not None
                and sum(q.count(' ') + a.count(' ') for q, a in dialogue) < limit
            ):
                return dialogue

    def still(self, things: list[Seen], long: int, short: int) -> list[list[Dialogue]]:
        """Return dialogues of the long kinds and of the short ones."""
        return [
            [self.one(things, LONG) for _ in range(long)],
            [self.one(things, SHORT, limit=SHORT_WORDS) for _ in range(short)],
        ]

    def clip(self, motion: str, mover: Seen | None, last: list[Seen] | None) -> list[Dialogue]:
        """Return five dialogues about eight frames; still ones only where the last is decided."""
        moving = [self.asker.motion(motion, mover) for _ in range(2)]
        if last is None:
            return [*moving, self.asker.motion(motion, mover), *self.unrelated(2)]
        short = [self.one(last, SHORT, limit=SHORT_WORDS) for _ in range(2)]
        return [*moving, *short, self.one(last, LONG)]

    def some(self, things: list[Seen]) -> list[Dialogue]:
        """Return five still dialogues of any kind."""
        kinds = {**SHORT, 'describe': 2.0, 'follow-up': 1.0, 'outside': 1.0}
        return [self.one(things, kinds) for _ in range(5)]

    def unrelated(self, count: int) -> list[Dialogue]:
        """Return outside questions."""
        return [self.one([], {'outside': 1.0}) for _ in range(count)]

    def text_only(self) -> list[Dialogue]:
        """Return six dialogues without a frame, all answered the same."""
        made: list[Dialogue] = []
        while len(made) < 6:
            kind = 'outside' if self._rng.random() < 0.5 else self._rng.choice(STILL_KINDS)
            dialogue = self.asker.ask([], kind)
            if dialogue is not None:
                made.append([(dialogue[0][0], OUTSIDE)])
        return made


class SeenStills(NamedTuple):
    """Rendered frames, normalised, with dialogues about the first of them."""

    batch: Batch
    pixels: Tensor
    pictures: list[data.Picture]


class Clips(NamedTuple):
    """Dialogues about clips, shown as pixels or as codes, and how things have moved in them."""

    batch: Batch
    shown: Tensor
    tracks: Tensor


@dataclass(frozen=True, slots=True)
class Lessons:
    """Draws batches."""

    store: data.FrameStore
    teacher: Teacher
    packer: Packer
    rng: np.random.Generator

    def text_only(self, rows: int) -> Batch:
        """Return questions without a frame."""
        return self.packer.pack(0, [[self.teacher.text_only() for _ in range(rows)]])

    def coded_stills(self, count: int) -> tuple[Batch, Tensor]:
        """Return dialogues about true scenes, repainted, and their codes."""
        coded, dialogues = [], []
        for i in self.rng.choice(self.store.usable, count):
            things = self.store.frames[i].things
            if self._coin():
                things = data.mirror(things)
            (things,) = data.repaint([things], self.rng)
            coded.append(codes.encode(things, self.rng))
            dialogues.append(self.teacher.still(there(things), 2, 4))
        return self._pack_stills(dialogues), torch.from_numpy(np.stack(coded))

    def coded_clips(self, count: int) -> Clips:
        """Return dialogues about true clips, repainted, and their codes."""
        frames, coded, dialogues, tracks = self._clip_length(), [], [], []
        for clip in self._draw_clips(count):
            turned = data.turned_clip(self.store, clip, back=self._coin(), flip=self._coin())
            rows = data.repaint(turned.things, self.rng)
            dialogues.append(self._clip_dialogues(turned._replace(things=rows), clip.who, frames))
            coded.append(np.concatenate([codes.encode(r, self.rng) for r in rows[-frames:]]))
            tracks.append(_tracks(rows[-frames:]))
        batch = self.packer.pack(frames, [dialogues])
        return Clips(batch, torch.from_numpy(np.stack(coded)), torch.from_numpy(np.stack(tracks)))

    def seen_stills(self, count: int, asked: int) -> SeenStills:
        """Return rendered frames, changed a little, with dialogues about the first of them."""
        pictures = self.pictures(count)
        dialogues = [self.teacher.still(there(p.things), 1, 3) for p in pictures[:asked]]
        return SeenStills(self._pack_stills(dialogues), stack_pixels(pictures), pictures)

    def seen_clips(self, count: int) -> Clips:
        """Return dialogues about rendered clips, played back or mirrored at times."""
        frames, pixels, dialogues, tracks = self._clip_length(), [], [], []
        for clip in self._draw_clips(count):
            back, flip = self._coin(), self._coin()
            turned = data.turned_clip(self.store, clip, back=back, flip=flip)
            dialogues.append(self._clip_dialogues(turned, clip.who, frames))
            images = data.clip_pixels(self.store, clip, self.rng, back=back, flip=flip)
            pixels.append(images[-frames:])
            tracks.append(_tracks(turned.things[-frames:]))
        batch = self.packer.pack(frames, [dialogues])
        shown = data.normalise(np.concatenate(pixels))
        return Clips(batch, shown, torch.from_numpy(np.stack(tracks)))

    def pictures(self, count: int) -> list[data.Picture]:
        """Return rendered frames, changed a little."""
        picked = self.rng.choice(self.store.usable, count)
        return [data.picture(self.store, int(i), self.rng) for i in picked]

    def _coin(self) -> bool:
        return bool(self.rng.random() < 0.5)

    def _clip_length(self) -> int:
        return CLIP_FRAMES if self.rng.random() < 0.85 else int(self.rng.integers(2, CLIP_FRAMES))

    def _draw_clips(self, count: int) -> list[data.ClipRecord]:
        return [self.store.clips[i] for i in self.rng.integers(0, len(self.store.clips), count)]

    def _pack_stills(self, dialogues: list[list[list[Dialogue]]]) -> Batch:
        return self.packer.pack(1, [[d[0] for d in dialogues], [d[1] for d in dialogues]])

    def _clip_dialogues(self, turned: data.TurnedClip, who: int, frames: int) -> list[Dialogue]:
        """Return the dialogues of one clip, of which the last `frames` are shown."""
        last = there(turned.things[-1]) if turned.decided[-1] else None
        if frames == CLIP_FRAMES:
            mover = turned.things[-1][who] if who >= 0 else None
            return self.teacher.clip(turned.motion, mover, last)
        return self.teacher.unrelated(5) if last is None else self.teacher.some(last)


def _tracks(rows: list[data.Things]) -> NDArray[np.float32]:
    return np.concatenate([codes.encode_tracks(rows[0], r) for r in rows])


def stack_pixels(pictures: list[data.Picture]) -> Tensor:
    """Return normalised pixels, (n, 3, px, px)."""
    return data.normalise(np.stack([p.pixels for p in pictures]))


def code_targets(pictures: list[data.Picture]) -> Tensor:
    """Return the codes of the pictures, (n, tokens, CODE)."""
    return torch.from_numpy(np.stack([codes.encode(p.things) for p in pictures]))
