"""Render the clip that `make demo` plays, with the truth of each of its frames.

A box stands in the way, a cone stands on the left, and a ball on the right rolls away all the
time, at least 36 % of its distance in any four seconds. It keeps its line of sight, so no place is
ever in doubt. When the clip loops the ball is back at its start: a window over that seam has no
true motion.

    python -m tools.demo_model.demo_clip --out edge_vlm_ros/demo/clips
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from edge_vlm_ros.demo import world
from tools.demo_model.sampler import good_still
from tools.demo_model.scenes import CONE_SIZES, Body, Camera, Seen, Still, look
from tools.demo_model.truths import describe, motion_answer, name, path_truth

NAME: Final = 'box_cone_and_rolling_ball'
FPS: Final = 15
SECONDS: Final = 12
FAR_AFTER_WINDOW: Final = 1.36  # how much farther the ball is after four seconds
CAMERA: Final = Camera(0.60, float(np.radians(15.0)), float(np.radians(62.0)))
_CONE: Final = 4
_CONE_WIDTH, _CONE_HEIGHT = (float(v) for v in CONE_SIZES[_CONE])
STANDING: Final = (
    Body('yellow', 'cone', 1.95, 0.78, 0.0, _CONE_WIDTH, _CONE_WIDTH, _CONE_HEIGHT, _CONE),
    Body('red', 'box', 1.22, 0.02, 0.5, 0.36, 0.34, 0.38),
)
BALL: Final = Body('blue', 'ball', 1.03, -0.42, 0.0, 0.31, 0.31, 0.31)


def scene(second: float) -> Still:
    """Return the scene at one time of the clip."""
    share = FAR_AFTER_WINDOW ** (second / world.CLIP_SECONDS)
    return Still(CAMERA, (*STANDING, replace(BALL, x=BALL.x * share, y=BALL.y * share)))


def truth_at(frame: int) -> dict[str, Any]:
    """Return what is true of one frame."""
    still = scene(frame / FPS)
    view = look(still.bodies, still.camera)
    if not good_still(still):
        raise SystemExit(f'frame {frame} breaks a rule of the world: {view.seen}')
    things: list[Seen] = [s for s in view.seen if s is not None]
    known, blocker = path_truth(things)
    if not known or blocker is None:
        raise SystemExit(f'frame {frame}: the way is not clearly blocked')
    return {
        'frame': frame,
        'second': round(frame / FPS, 3),
        'describe': describe(things),
        'path': world.path_answer(name(blocker)),
        'objects': [
            {k: round(v, 3) if isinstance(v, float) else v for k, v in t._asdict().items()}
            for t in things
        ],
    }


def truth() -> dict[str, Any]:
    """Return the truth of the whole clip."""
    frames = [truth_at(i) for i in range(FPS * SECONDS)]
    mover = Seen(**frames[0]['objects'][-1])
    return {
        'clip': f'{NAME}.mp4',
        'fps': FPS,
        'frames_in_all': len(frames),
        'seconds': SECONDS,
        'seam': {
            'second': SECONDS,
            'note': 'A motion window that starts before the end of one turn of the loop and ends '
            'after it has no true motion; still questions mean the last frame and stay true.',
        },
        'motion': {'window_seconds': world.CLIP_SECONDS, 'answer': motion_answer('away', mover)},
        'colour': {o['shape']: f'{o["colour"].capitalize()}.' for o in frames[0]['objects']},
        'questions': {
            'describe': 'Describe what you see.',
            'colour': 'What color is the ball?',
            'motion': 'What is moving?',
            'path': 'Is the way ahead clear?',
        },
        'frames': frames,
    }


def as_json(facts: dict[str, Any]) -> str:
    """Return the text of the file beside the clip."""
    return json.dumps(facts, indent=1) + '\n'


def write_video(path: Path) -> None:
    """Render the clip."""
    from tools.demo_model.render import Look, SceneRenderer

    style = Look(
        floor=2,
        floor_rgb=(0.62, 0.60, 0.55),
        floor_repeat=0.8,
        wall=0,
        wall_rgb=(0.72, 0.75, 0.78),
        wall_repeat=1.0,
        wall_x=6.0,
        ambient=0.35,
        head=0.2,
        lights=((0.6, 0.01, 2.1, 1.0),),
        shades=((0.86, 0.76, 0.08), (0.74, 0.12, 0.10), (0.10, 0.28, 0.76)),
        blur_px=0.5,
        noise=0.8,
    )
    renderer, rng = SceneRenderer(640, 480, shadow_px=2048), np.random.default_rng(5)
    part = path.with_name(f'.{path.stem}.part.mp4')
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*'mp4v'), FPS, (640, 480))
    for frame in range(FPS * SECONDS):
        image = renderer.render(scene(frame / FPS), style, rng)
        writer.write(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    writer.release()
    part.replace(path)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('edge_vlm_ros/demo/clips'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    facts = as_json(truth())  # first: a frame that breaks a rule ends it here
    write_video(args.out / f'{NAME}.mp4')
    (args.out / f'{NAME}.json').write_text(facts)


if __name__ == '__main__':
    main()
