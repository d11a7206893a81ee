"""Make the held-out pack that the tests ask the demo model about.

Fresh scenes and clips, with seeds of their own, as JPEG in two .npz files, and questions in the
held-out wordings with their answers. Frames are rendered at 640 x 480 and kept at half that size,
so that the pack stays small.

    python -m tools.demo_model.pack --out test/demo/data
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edge_vlm_ros.demo.world import CLIP_FRAMES, CLIP_SECONDS
from tools.demo_model import heldout
from tools.demo_model.asker import STILL_KINDS, Dialogue
from tools.demo_model.heldout import HeldOutAsker
from tools.demo_model.sampler import SceneSampler
from tools.demo_model.scenes import Clip, Seen, Still, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tools.demo_model.render import RgbImage

SIZE: Final = (320, 240)
QUALITY: Final = 86
STILLS: Final = 240
CLIPS: Final = 56


@dataclass(frozen=True, slots=True)
class Drawn:
    """The scenes of a pack, and what is asked about them.

    Attributes:
        stills: Scenes of one frame.
        clips: Scenes of CLIP_FRAMES frames.
        facts: What questions.json holds.
    """

    stills: list[Still]
    clips: list[Clip]
    facts: dict[str, Any]

    def as_json(self) -> str:
        """Return the text of questions.json."""
        return json.dumps(self.facts, separators=(',', ':')) + '\n'


def draw(stills: int = STILLS, clips: int = CLIPS) -> Drawn:
    """Draw scenes and questions; the same every time. Nothing is rendered."""
    sampler = SceneSampler(heldout.PACK_SEED)
    asker = HeldOutAsker(random.Random(heldout.PACK_SEED + 2))
    drawn_stills = [sampler.still() for _ in range(stills)]
    of_stills = [_about_still(still, asker) for still in drawn_stills]
    drawn_clips = [sampler.clip() for _ in range(clips)]
    facts = {
        'made_by': 'python -m tools.demo_model.pack',
        'clip_frames': CLIP_FRAMES,
        'clip_seconds': CLIP_SECONDS,
        'stills': of_stills,
        'clips': [_about_clip(clip, asker) for clip in drawn_clips],
    }
    return Drawn(drawn_stills, drawn_clips, facts)


def _about_still(still: Still, asker: HeldOutAsker) -> dict[str, Any]:
    things = [s for s in look(still.bodies, still.camera).seen if s is not None]
    kinds = [(k, asker.ask(things, k)) for k in STILL_KINDS]
    return {
        'objects': [_rounded(t) for t in things],
        'dialogues': [_as_turns(k, d) for k, d in kinds if d is not None],
    }


def _about_clip(clip: Clip, asker: HeldOutAsker) -> dict[str, Any]:
    last = look(clip.frames[-1].bodies, clip.frames[-1].camera).seen
    mover = last[clip.who] if clip.who >= 0 else None
    return {
        'motion': clip.motion,
        'objects_at_the_end': [_rounded(t) for t in last if t is not None],
        'dialogues': [_as_turns('motion', asker.motion(clip.motion, mover))],
    }


def _rounded(thing: Seen) -> dict[str, Any]:
    values = thing._asdict()
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}


def _as_turns(kind: str, dialogue: Dialogue) -> dict[str, Any]:
    return {'kind': kind, 'turns': [list(turn) for turn in dialogue]}


def jpeg(image: RgbImage) -> NDArray[np.uint8]:
    """Return a frame at half size as JPEG bytes."""
    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    flags = [cv2.IMWRITE_JPEG_QUALITY, QUALITY, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    done, data = cv2.imencode('.jpg', cv2.cvtColor(small, cv2.COLOR_RGB2BGR), flags)
    assert done
    return data.ravel()


def save_jpegs(path: Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Write `bytes`, all files in a row, and `ends`, where each ends."""
    ends = np.cumsum([len(i) for i in images])
    np.savez(path, bytes=np.concatenate(images), ends=ends)


def write_frames(drawn: Drawn, folder: Path) -> None:
    """Render all frames into stills.npz and clips.npz."""
    from tools.demo_model.render import SceneRenderer, draw_look

    renderer, rng = SceneRenderer(640, 480), np.random.default_rng(heldout.PACK_SEED + 1)
    stills = [
        jpeg(renderer.render(still, draw_look(rng, still.bodies), rng)) for still in drawn.stills
    ]
    clips = []
    for clip in drawn.clips:
        style = draw_look(rng, clip.frames[0].bodies)
        clips += [jpeg(renderer.render(frame, style, rng)) for frame in clip.frames]
    save_jpegs(folder / 'stills.npz', stills)
    save_jpegs(folder / 'clips.npz', clips)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('test/demo/data'))
    parser.add_argument('--stills', type=int, default=STILLS)
    parser.add_argument('--clips', type=int, default=CLIPS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    drawn = draw(args.stills, args.clips)
    write_frames(drawn, args.out)
    (args.out / 'questions.json').write_text(drawn.as_json())


if __name__ == '__main__':
    main()
