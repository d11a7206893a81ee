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
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from tools.demo_model import heldout
from tools.demo_model.heldout import HeldOutAsker
from tools.demo_model.questions import STILL_KINDS
from tools.demo_model.render import SceneRenderer, draw_look
from tools.demo_model.scenes import CLIP_FRAMES, CLIP_SECONDS, SceneSampler, Seen, look

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tools.demo_model.questions import Dialogue
    from tools.demo_model.render import RgbImage

SIZE: Final = (320, 240)
QUALITY: Final = 86


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


def as_turns(kind: str, dialogue: Dialogue) -> dict[str, Any]:
    """Return a dialogue as JSON values."""
    return {'kind': kind, 'turns': [list(turn) for turn in dialogue]}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('test/demo/data'))
    parser.add_argument('--stills', type=int, default=240)
    parser.add_argument('--clips', type=int, default=56)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    renderer = SceneRenderer(640, 480)
    sampler, rng = SceneSampler(heldout.PACK_SEED), np.random.default_rng(heldout.PACK_SEED + 1)
    asker = HeldOutAsker(random.Random(heldout.PACK_SEED + 2))
    stills, clips = [], []
    facts: dict[str, Any] = {
        'made_by': 'python -m tools.demo_model.pack',
        'clip_frames': CLIP_FRAMES,
        'clip_seconds': CLIP_SECONDS,
        'stills': [],
        'clips': [],
    }
    for _ in range(args.stills):
        still = sampler.still()
        stills.append(jpeg(renderer.render(still, draw_look(rng, still.bodies), rng)))
        things = [s for s in look(still.bodies, still.camera).seen if s is not None]
        kinds = [(k, asker.ask(things, k)) for k in STILL_KINDS]
        facts['stills'].append(
            {
                'objects': [_rounded(t) for t in things],
                'dialogues': [as_turns(k, d) for k, d in kinds if d is not None],
            }
        )
    for _ in range(args.clips):
        clip = sampler.clip()
        style = draw_look(rng, clip.frames[0].bodies)
        clips += [jpeg(renderer.render(f, style, rng)) for f in clip.frames]
        last = look(clip.frames[-1].bodies, clip.frames[-1].camera).seen
        mover = last[clip.who] if clip.who >= 0 else None
        facts['clips'].append(
            {
                'motion': clip.motion,
                'objects_at_the_end': [_rounded(t) for t in last if t is not None],
                'dialogues': [as_turns('motion', asker.motion(clip.motion, mover))],
            }
        )
    save_jpegs(args.out / 'stills.npz', stills)
    save_jpegs(args.out / 'clips.npz', clips)
    (args.out / 'questions.json').write_text(json.dumps(facts, separators=(',', ':')) + '\n')


def _rounded(thing: Seen) -> dict[str, Any]:
    values = thing._asdict()
    return {k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}


if __name__ == '__main__':
    main()
