"""Render the clip that `edge-vlm replay demo` plays, with the labels of what happens in it.

A cone stands on the left. A ball rolls into the way and stays, twice, and once it only flits
through: too short to be an event. The labels are the times in which the rules of the world say
that the way is blocked, where that lasts a second or more; between them nothing is in the way.

    MUJOCO_GL=egl python -m tools.demo_model.watch_clip --out edge_vlm_ros/demo/recordings
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from tools.demo_model.demo_clip import BALL, CAMERA, STANDING
from tools.demo_model.scenes import Still, look
from tools.demo_model.truths import path_truth

NAME: Final = 'ball_in_the_way'
FPS: Final = 10
WIDTH, HEIGHT = 320, 240
EVENT_S: Final = 1.0
"""What blocks the way for less is no event."""
STOPS: Final = (
    (0.0, -0.44), (6.0, -0.44), (7.2, 0.0), (14.0, 0.0), (15.2, -0.44), (21.0, -0.44),
    (21.5, -0.04), (21.7, -0.04), (22.2, -0.44), (29.0, -0.44), (30.2, 0.0), (37.0, 0.0),
    (38.2, -0.44), (44.0, -0.44),
)  # fmt: skip
"""When the ball is where: seconds, metres to the left of the way's middle."""


def scene(second: float) -> Still:
    """Return the scene at one time of the clip."""
    times, places = zip(*STOPS, strict=True)
    ball = replace(BALL, x=1.06, y=float(np.interp(second, times, places)))
    return Still(CAMERA, (STANDING[0], ball))


def is_blocked(second: float) -> bool | None:
    """Return whether the way is blocked; None: a toss-up."""
    still = scene(second)
    things = [seen for seen in look(still.bodies, still.camera).seen if seen is not None]
    known, blocker = path_truth(things)
    return blocker is not None if known else None


def labels() -> dict[str, Any]:
    """Return the labels file."""
    frames = [(n / FPS, is_blocked(n / FPS)) for n in range(round(STOPS[-1][0] * FPS))]
    runs = [list(run) for is_in, run in groupby(frames, lambda each: each[1]) if is_in]
    spans = [(run[0][0], run[-1][0]) for run in runs]
    return {
        'clip': f'{NAME}.mp4',
        'made_by': 'python -m tools.demo_model.watch_clip',
        'watches': {
            'blocked': [
                {'begin_s': begin, 'end_s': end} for begin, end in spans if end - begin >= EVENT_S
            ]
        },
    }


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
        shades=((0.86, 0.76, 0.08), (0.10, 0.28, 0.76)),
        blur_px=0.5,
        noise=0.8,
    )
    renderer, rng = SceneRenderer(640, 480, shadow_px=2048), np.random.default_rng(5)
    part = path.with_name(f'.{path.stem}.part.mp4')
    writer = cv2.VideoWriter(str(part), cv2.VideoWriter.fourcc(*'mp4v'), FPS, (WIDTH, HEIGHT))
    for frame in range(round(STOPS[-1][0] * FPS)):
        image = renderer.render(scene(frame / FPS), style, rng)
        small = cv2.resize(image, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        writer.write(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    writer.release()
    part.replace(path)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('edge_vlm_ros/demo/recordings'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(labels(), indent=1) + '\n'
    write_video(args.out / f'{NAME}.mp4')
    (args.out / f'{NAME}.labels.json').write_text(text)


if __name__ == '__main__':
    main()
