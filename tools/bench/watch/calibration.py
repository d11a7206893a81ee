"""How well the demo model's probabilities are calibrated, and what a threshold makes of it.

The packed held-out scenes (test/demo/data: seeds and wordings that were never trained on), asked
with yes and no what a watch would ask: is there this thing (each that is there, and others that
share its colour or its shape), is there something of this colour, is the way ahead clear. Once as
they were rendered, and once as at dusk: a quarter of the light, and a sensor's noise.

    python -m tools.bench.watch.calibration
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_vlm_ros.core import (
    YES_NO,
    CompressedImage,
    FrameSource,
    Question,
    RawImage,
    RgbImage,
    StoredFrame,
)
from edge_vlm_ros.demo import world
from edge_vlm_ros.vision import decode_image
from tools.demo_model.heldout import WORDINGS
from tools.demo_model.scenes import Seen
from tools.demo_model.truths import path_truth

if TYPE_CHECKING:
    from edge_vlm_ros.serving import VlmPipeline

DATA: Final = Path(__file__).resolve().parents[3] / 'test' / 'demo' / 'data'
SEED: Final = 20
ABSENT: Final = 4
"""Things that are not there, of a scene."""

THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
BINS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
DUSK_LIGHT: Final = 0.25
DUSK_NOISE: Final = 8.0


@dataclass(frozen=True, slots=True)
class Look:
    """One look of a watch.

    Attributes:
        is_event: What is true.
        says_event: What the model says.
        probability: Of what it says.
    """

    is_event: bool
    says_event: bool
    probability: float

    @property
    def is_right(self) -> bool:
        """Whether it says what is true."""
        return self.is_event == self.says_event


@dataclass(frozen=True, slots=True)
class Row:
    """What one threshold makes of the looks.

    Attributes:
        threshold: `min_probability` of the watch.
        unsure: Share of looks that are no vote.
        false_alarms: Of the looks without an event, the share that votes for one.
        misses: Of the looks with an event, the share that does not vote for it.
    """

    threshold: float
    unsure: float
    false_alarms: float
    misses: float


def asked_of(objects: Sequence[dict[str, Any]], rng: random.Random) -> Iterator[tuple[str, bool]]:
    """Give out the questions about one scene, and whether the true answer is yes."""
    things = [Seen(**each) for each in objects]
    whole = {(t.colour, t.shape) for t in things if t.visible >= world.WHOLE}
    there = {(t.colour, t.shape) for t in things}
    for colour, shape in sorted(whole):
        yield _said('existence', rng, o=f'{colour} {shape}'), True
    near = {
        (c, s)
        for c, s in itertools.product(world.COLOURS, world.SHAPES)
        if any(c == colour or s == shape for colour, shape in there)
    }
    absent = sorted(near - there)
    for colour, shape in rng.sample(absent, min(ABSENT, len(absent))):
        yield _said('existence', rng, o=f'{colour} {shape}'), False
    colours = {colour for colour, _ in there}
    for colour in sorted({colour for colour, _ in whole}):
        yield _said('existence_colour', rng, c=colour), True
    for colour in rng.sample([c for c in world.COLOURS if c not in colours], 2):
        yield _said('existence_colour', rng, c=colour), False
    known, blocker = path_truth(things)
    if known:
        yield _said('path', rng), blocker is None


def looks(pipeline: VlmPipeline, *, is_dusk: bool = False, scenes: int = 0) -> list[Look]:
    """Ask everything about all scenes.

    Args:
        pipeline: Of the demo model.
        is_dusk: In little light.
        scenes: Only the first so many; 0 = all.
    """
    facts = json.loads((DATA / 'questions.json').read_text())['stills']
    rng, noise = random.Random(SEED), np.random.default_rng(SEED)
    found = []
    stills = zip(_pictures(), facts, strict=True)
    for number, (picture, scene) in enumerate(itertools.islice(stills, scenes or None), 1):
        shown = _dusk(picture, noise) if is_dusk else picture
        frame = _stored(number, shown)
        for words, is_yes in asked_of(scene['objects'], rng):
            answer = pipeline.ask(Question(words, frames=(frame,), choices=YES_NO)).answer(60)
            assert answer.choice_probability is not None, answer.message
            found.append(Look(is_yes, answer.choice == 'yes', answer.choice_probability))
    return found


def rows(found: Sequence[Look], thresholds: Sequence[float] = THRESHOLDS) -> list[Row]:
    """Return what each threshold makes of looks."""
    calm = [look for look in found if not look.is_event]
    events = [look for look in found if look.is_event]
    return [
        Row(
            threshold,
            _share(look.probability < threshold for look in found),
            _share(look.says_event and look.probability >= threshold for look in calm),
            _share(not (look.says_event and look.probability >= threshold) for look in events),
        )
        for threshold in thresholds
    ]


def bins(found: Sequence[Look]) -> list[tuple[float, float, int, float, float]]:
    """Return looks by probability: from, to, how many, their mean, the share that is right."""
    result = []
    for low, high in itertools.pairwise(BINS):
        inside = [k for k in found if low <= k.probability < high or k.probability == high == 1.0]
        if inside:
            mean = float(np.mean([look.probability for look in inside]))
            right = _share(look.is_right for look in inside)
            result.append((low, high, len(inside), mean, right))
    return result


def calibration_error(found: Sequence[Look]) -> float:
    """Return the mean distance of probability and share of right answers, weighted by looks."""
    return sum(n * abs(mean - right) for _, _, n, mean, right in bins(found)) / len(found)


def as_markdown(found: dict[str, list[Look]]) -> str:
    """Return both tables for doc/watch.md."""
    lines = ['| looks | probability said | looks | mean | right |', '|---|---|---:|---:|---:|']
    for name, own in found.items():
        for low, high, number, mean, right in bins(own):
            lines.append(f'| {name} | {low:g} to {high:g} | {number} | {mean:.3f} | {right:.3f} |')
    lines += [
        '',
        '| looks | `min_probability` | unsure | false alarms | misses |',
        '|---|---:|---:|---:|---:|',
    ]
    for name, own in found.items():
        for row in rows(own):
            shares = f'{row.unsure:.1%} | {row.false_alarms:.2%} | {row.misses:.2%}'
            lines.append(f'| {name} | {row.threshold:g} | {shares} |')
    return '\n'.join(lines)


def _said(kind: str, rng: random.Random, **parts: str) -> str:
    """Word a question as one that was never trained on."""
    return rng.choice(WORDINGS[kind]).format(**parts)


def _pictures() -> Iterator[RgbImage]:
    with np.load(DATA / 'stills.npz') as pack:
        start = 0
        for stop in pack['ends']:
            yield decode_image(CompressedImage('jpeg', pack['bytes'][start:stop].tobytes()))
            start = stop


def _dusk(picture: RgbImage, rng: np.random.Generator) -> RgbImage:
    """Return a picture in little light."""
    noise = rng.normal(0.0, DUSK_NOISE, picture.shape)
    return np.clip(picture * DUSK_LIGHT + noise, 0, 255).astype(np.uint8)


def _stored(number: int, picture: RgbImage) -> StoredFrame:
    height, width, _ = picture.shape
    image = RawImage('rgb8', width, height, 3 * width, picture.tobytes())
    return StoredFrame(FrameSource('scene'), number, image)


def _share(holds: Iterator[bool]) -> float:
    values = list(holds)
    return sum(values) / len(values) if values else 0.0


def main() -> None:
    """Print the tables."""
    from edge_vlm_ros.serving import VlmPipeline

    with VlmPipeline.open(chip='cpu', model='demo') as pipeline:
        found = {'as rendered': looks(pipeline), 'at dusk': looks(pipeline, is_dusk=True)}
    for name, own in found.items():
        print(f'{name}: {len(own)} looks, calibration error {calibration_error(own):.4f}')
    print(as_markdown(found))


if __name__ == '__main__':
    main()
