"""Render scenes of the demo world with MuJoCo.

One model holds every floor, wall and candidate object; a scene is made by writing poses, sizes and
looks into it, so nothing is compiled twice. As a command it writes shards of training pictures:

    python -m tools.demo_model.render --out DIR --seed 1 --stills 12000 --clips 1500
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

os.environ.setdefault('MUJOCO_GL', 'egl')

import cv2
import mujoco
import numpy as np
from PIL import Image

from edge_vlm_ros.demo.world import CLIP_FRAMES
from tools.demo_model.sampler import SceneSampler
from tools.demo_model.scenes import CONE_SIZES, Still, View, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edge_vlm_ros.demo.world import Colour
    from tools.demo_model.scenes import Body, Clip

    RgbImage = NDArray[np.uint8]

cv2.setNumThreads(1)

MODEL_PX: Final = 112
TEXTURES: Final = 20
TEXTURE_PX: Final = 256
SKY: Final = TEXTURES
HSV: Final[dict[Colour, tuple[float, float, float]]] = {
    'red': (0, 0.85, 0.75),
    'green': (125, 0.75, 0.60),
    'blue': (222, 0.85, 0.75),
    'yellow': (54, 0.90, 0.88),
    'purple': (282, 0.70, 0.60),
    'white': (0, 0.03, 0.95),
}
HUE_SPREAD: Final[dict[Colour, float]] = {'red': 6, 'yellow': 5, 'purple': 12}


@dataclass(frozen=True, slots=True)
class Look:
    """Everything but geometry: surfaces, lights, shades of the objects, and the sensor."""

    floor: int
    floor_rgb: tuple[float, float, float]
    floor_repeat: float
    wall: int | None
    wall_rgb: tuple[float, float, float]
    wall_repeat: float
    wall_x: float
    ambient: float
    head: float
    lights: tuple[tuple[float, float, float, float], ...]  # strength, warmth, azimuth, elevation
    shades: tuple[tuple[float, float, float], ...]
    blur_px: float
    noise: float


def rgb_of(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """Return RGB shares of a hue in degrees."""
    pixel = np.array([[[hue % 360, np.clip(saturation, 0, 1), np.clip(value, 0, 1)]]], np.float32)
    r, g, b = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0]
    return float(r), float(g), float(b)


def draw_look(rng: np.random.Generator, bodies: tuple[Body, ...]) -> Look:
    """Draw the look of one scene."""

    def muted(darkest: float, brightest: float) -> tuple[float, float, float]:
        return rgb_of(rng.uniform(0, 360), rng.uniform(0, 0.35), rng.uniform(darkest, brightest))

    def shade(colour: Colour) -> tuple[float, float, float]:
        hue, saturation, value = HSV[colour]
        hue += rng.uniform(-1, 1) * HUE_SPREAD.get(colour, 14)
        saturation += rng.uniform(-1, 1) * (0.14 if saturation > 0.1 else 0.03)
        return rgb_of(hue, saturation, value * rng.uniform(0.85, 1.12))

    floor = int(rng.integers(TEXTURES))
    back = rng.random()
    wall: int | None = None
    wall_rgb, wall_x = muted(0.45, 0.85), float(rng.uniform(4.2, 7.0))
    if back < 0.55:
        wall = int(rng.integers(TEXTURES - 1))
        wall += wall >= floor
    else:
        wall_rgb = rgb_of(rng.uniform(180, 260), rng.uniform(0, 0.3), rng.uniform(0.55, 0.95))
        wall_x = 20.0
    second = rng.random() < 0.5
    lights = tuple(
        (
            float(rng.uniform(0.40, 0.75)) * (1.0 if i == 0 else 0.5),
            float(rng.uniform(-0.06, 0.06)),
            float(rng.uniform(0, 2 * np.pi)),
            float(np.radians(rng.uniform(38, 85))),
        )
        for i in range(1 + second)
    )
    return Look(
        floor,
        muted(0.28, 0.80),
        float(2 ** rng.uniform(-1.2, 1.0)),
        wall,
        wall_rgb,
        float(2 ** rng.uniform(-1.2, 1.0)),
        wall_x,
        float(rng.uniform(0.25, 0.42)),
        float(rng.uniform(0.05, 0.35)),
        lights,
        tuple(shade(b.colour) for b in bodies),
        float(rng.uniform(0, 0.7)),
        float(rng.uniform(0, 4)),
    )


def _model_xml(width_px: int, height_px: int, shadow_px: int, samples: int) -> str:
    parts = ['<asset>']
    parts += [
        f'<texture name="t{i}" type="2d" builtin="flat" rgb1="1 1 1"'
        f' width="{TEXTURE_PX}" height="{TEXTURE_PX}"/>'
        f'<material name="m{i}" texture="t{i}" texuniform="true" specular="0.1"/>'
        for i in range(TEXTURES)
    ]
    parts.append('<material name="sky" emission="1" specular="0"/>')
    turn = np.linspace(0, 2 * np.pi, 33)[:-1]
    for i, (width, height) in enumerate(CONE_SIZES):
        ring = np.stack([width / 2 * np.cos(turn), width / 2 * np.sin(turn), 0 * turn], 1)
        points = np.concatenate([ring, [[0, 0, height]]]).ravel()
        parts.append(f'<mesh name="c{i}" vertex="{" ".join(f"{p:.5f}" for p in points)}"/>')
    parts.append(
        '</asset><worldbody>'
        '<light name="l0" type="directional" pos="0 0 4" dir="0 0 -1" castshadow="true"/>'
        '<light name="l1" type="directional" pos="0 0 4" dir="0 0 -1" castshadow="false"/>'
        '<geom name="floor" type="plane" size="40 40 .1" material="m0"/>'
        '<geom name="wall" type="box" size=".1 30 4" material="m0" pos="6 0 4"/>'
        '<camera name="robot" pos="0 0 1"/>'
    )
    hidden = 'rgba="1 0 0 0"'
    parts += [
        f'<geom name="cone{i}" type="mesh" mesh="c{i}" {hidden}/>' for i in range(len(CONE_SIZES))
    ]
    parts += [
        f'<geom name="box{i}" type="box" size=".1 .1 .1" {hidden}/>'
        f'<geom name="ball{i}" type="sphere" size=".1" {hidden}/>'
        for i in range(3)
    ]
    return (
        '<mujoco><statistic extent="3" center="1.5 0 0"/><visual>'
        f'<quality shadowsize="{shadow_px}" offsamples="{samples}"/><map znear="0.02" zfar="15"/>'
        f'<global offwidth="{width_px}" offheight="{height_px}"/></visual>'
        f'{"".join(parts)}</worldbody></mujoco>'
    )


def _paint_textures(model: Any) -> None:
    """Fill the textures with greys, tinted later: plain, checker, stripes, noise."""
    rng = np.random.default_rng(7)
    n = TEXTURE_PX
    rows, columns = np.mgrid[:n, :n]
    for i in range(TEXTURES):
        low = rng.uniform(0.45, 0.85)
        if i % 4 == 0:
            grey = np.ones((n, n))
        elif i % 4 == 1:
            grey = ((columns // 64 + rows // 64) % 2) * (1 - low) + low
        elif i % 4 == 2:
            grey = (((columns if i % 8 < 4 else rows) // 32) % 2) * (1 - low) + low
        else:
            layers = [
                cv2.resize(rng.random((s, s)), (n, n), interpolation=cv2.INTER_CUBIC)
                for s in (16, 48, 128)
            ]
            grey = low + (1 - low) * np.clip((sum(layers) / 3 - 0.2) / 0.6, 0, 1)
        tint = np.clip(1 + 0.15 * rng.standard_normal(3), 0.6, 1.5)
        pixels = np.clip(grey[..., None] ** tint, 0, 1) * 255
        at = model.tex_adr[i]
        model.tex_data[at : at + n * n * 3] = pixels.astype(np.uint8).ravel()


class SceneRenderer:
    """Renders scenes at one size; a square size squashes the 4:3 picture."""

    def __init__(
        self, width_px: int, height_px: int, *, shadow_px: int = 1024, samples: int = 0
    ) -> None:
        xml = _model_xml(width_px, height_px, shadow_px, samples)
        self._model = mujoco.MjModel.from_xml_string(xml)
        _paint_textures(self._model)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, self._data)
        self._renderer = mujoco.Renderer(self._model, height_px, width_px)
        self._geoms = {self._model.geom(i).name: i for i in range(self._model.ngeom)}
        self._size = (height_px, width_px)
        noise = np.random.default_rng(11).standard_normal((height_px * 2, width_px * 2, 3))
        self._noise = noise.astype(np.float32)

    def render(self, still: Still, look: Look, rng: np.random.Generator) -> RgbImage:
        """Render one picture, (height, width, 3); `rng` only draws the sensor noise."""
        self._dress(look)
        for i, body in enumerate(still.bodies):
            self._stand(i, body, look.shades[i])
        model, data, camera = self._model, self._data, still.camera
        data.cam_xpos[0] = camera.position()
        data.cam_xmat[0] = camera.axes().ravel()
        half = np.tan(camera.hfov_rad / 2)
        model.cam_fovy[0] = np.degrees(2 * np.arctan(0.75 * half))
        self._renderer.update_scene(data, 'robot')
        for eye in self._renderer.scene.camera[:2]:
            eye.frustum_width = (4 / 3) * 0.5 * (eye.frustum_top - eye.frustum_bottom)
        image = self._renderer.render()
        if look.blur_px > 0.25:
            image = cv2.GaussianBlur(image, (0, 0), look.blur_px)
        height, width = self._size
        y, x = rng.integers(0, height), rng.integers(0, width)
        noisy = image + self._noise[y : y + height, x : x + width] * np.float32(look.noise)
        shown: RgbImage = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
        return shown

    def _dress(self, look: Look) -> None:
        model, data, geoms = self._model, self._data, self._geoms
        model.geom_rgba[:, 3] = 0
        floor, wall = geoms['floor'], geoms['wall']
        model.geom_rgba[floor] = (0.5, 0.5, 0.5, 1)
        model.geom_matid[floor] = look.floor
        model.mat_texrepeat[look.floor] = look.floor_repeat
        model.mat_rgba[look.floor] = (*look.floor_rgb, 1)
        material = SKY if look.wall is None else look.wall
        model.geom_rgba[wall] = (0.5, 0.5, 0.5, 1)
        model.geom_matid[wall] = material
        model.mat_texrepeat[material] = look.wall_repeat
        model.mat_rgba[material] = (*look.wall_rgb, 1)
        data.geom_xpos[wall] = (look.wall_x, 0, 4)
        model.vis.headlight.ambient[:] = look.ambient
        model.vis.headlight.diffuse[:] = look.head
        model.vis.headlight.specular[:] = 0.1
        model.light_active[:] = 0
        for i, (strength, warmth, azimuth, elevation) in enumerate(look.lights):
            model.light_active[i] = 1
            model.light_diffuse[i] = strength * np.array([1 + warmth, 1, 1 - warmth])
            up = np.sin(elevation)
            flat = np.cos(elevation)
            down = -np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, up])
            data.light_xdir[i] = down
            data.light_xpos[i] = np.array([2, 0, 0]) - 5 * down

    def _stand(self, index: int, body: Body, rgb: tuple[float, float, float]) -> None:
        model, data = self._model, self._data
        name = f'cone{body.cone}' if body.shape == 'cone' else f'{body.shape}{index}'
        geom = self._geoms[name]
        model.geom_rgba[geom] = (*rgb, 1)
        cos, sin = np.cos(body.turn_rad), np.sin(body.turn_rad)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1.0]])
        place = np.array([body.x, body.y, body.height_m / 2])
        if body.shape == 'box':
            model.geom_size[geom] = (body.width_m / 2, body.depth_m / 2, body.height_m / 2)
        elif body.shape == 'ball':
            model.geom_size[geom] = body.width_m / 2
        else:
            mesh = model.geom_dataid[geom]
            own = np.zeros(9)
            mujoco.mju_quat2Mat(own, model.mesh_quat[mesh])
            place = np.array([body.x, body.y, 0]) + turn @ model.mesh_pos[mesh]
            turn = turn @ own.reshape(3, 3)
        data.geom_xpos[geom] = place
        data.geom_xmat[geom] = turn.ravel()


def squash(image: RgbImage, size_px: int = MODEL_PX) -> tuple[RgbImage, RgbImage]:
    """Shrink to a square in the two ways used at run time: PIL bicubic, and area averaging."""
    bicubic = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BICUBIC)
    area = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.asarray(bicubic), np.asarray(area, np.uint8)


def describe_view(view: View) -> dict[str, Any]:
    """Return a view as JSON values, without its instance map."""
    return {
        'seen': [
            None if s is None else [round(v, 4) if isinstance(v, float) else v for v in s]
            for s in view.seen
        ],
        'outside': list(view.outside),
    }


class ShardWriter:
    """Collects pictures and their truth and writes them as one .npz with a .json beside it."""

    def __init__(self) -> None:
        self.bicubic: list[RgbImage] = []
        self.area: list[RgbImage] = []
        self.maps: list[NDArray[np.uint8]] = []
        self.truth: list[dict[str, Any]] = []

    def add(self, image: RgbImage, view: View) -> None:
        """Add one picture."""
        bicubic, area = squash(image)
        self.bicubic.append(bicubic)
        self.area.append(area)
        self.maps.append(view.instances)

    def write(self, stem: Path) -> None:
        """Write what was collected; the .json comes last and marks the shard complete."""
        for name in ('bicubic', 'area', 'maps'):
            np.save(f'{stem}_{name}.npy', np.stack(getattr(self, name)))
        part = stem.with_suffix('.part')
        part.write_text(json.dumps(self.truth))
        part.rename(stem.with_suffix('.json'))


def render_clip(
    renderer: SceneRenderer, clip: Clip, look: Look, rng: np.random.Generator
) -> list[RgbImage]:
    """Render all frames of a clip under one look."""
    return [renderer.render(frame, look, rng) for frame in clip.frames]


@dataclass(frozen=True, slots=True)
class Order:
    """What to render: how many, and the share of it at 640 x 480 before it is shrunk."""

    seed: int
    stills: int
    clips: int
    full_share: float
    shard: int


def write_shards(out: Path, order: Order) -> None:
    """Render stills and clips in turns, so that an early stop still leaves both."""
    stills, clips, shard = order.stills, order.clips, order.shard
    out.mkdir(parents=True, exist_ok=True)
    sampler, rng = SceneSampler(order.seed), np.random.default_rng((order.seed, 1))
    squashed = SceneRenderer(224, 224, shadow_px=512)
    full = SceneRenderer(640, 480)
    began, made, done = time.time(), 0, {'stills': 0, 'clips': 0}
    number = 0
    while done['stills'] < stills or done['clips'] < clips:
        is_clip = done['clips'] * max(stills, 1) < done['stills'] * clips
        kind, writer = 'clips' if is_clip else 'stills', ShardWriter()
        count = min(shard // 8 if is_clip else shard, (clips if is_clip else stills) - done[kind])
        for _ in range(count):
            renderer = full if rng.random() < order.full_share else squashed
            if is_clip:
                clip = sampler.clip()
                style = draw_look(rng, clip.frames[0].bodies)
                views = [look(f.bodies, f.camera) for f in clip.frames]
                for image, view in zip(
                    render_clip(renderer, clip, style, rng), views, strict=True
                ):
                    writer.add(image, view)
                writer.truth.append(
                    {
                        'motion': clip.motion,
                        'who': clip.who,
                        'frames': [describe_view(v) for v in views],
                    }
                )
            else:
                still = sampler.still()
                view = look(still.bodies, still.camera)
                style = draw_look(rng, still.bodies)
                writer.add(renderer.render(still, style, rng), view)
                writer.truth.append(describe_view(view))
            made += CLIP_FRAMES if is_clip else 1
        writer.write(out / f'{kind}_{order.seed}_{number:04d}')
        number += 1
        done[kind] += count
        rate = made / (time.time() - began)
        print(f'{done["stills"]} stills {done["clips"]} clips, {rate:.1f} frames/s', flush=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=Path('build/demo_model/data'))
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--stills', type=int, default=12000)
    parser.add_argument('--clips', type=int, default=1500)
    parser.add_argument('--full-share', type=float, default=0.1, help='share at 640 x 480')
    parser.add_argument('--shard', type=int, default=1000, help='frames in one file')
    args = parser.parse_args()
    order = Order(args.seed, args.stills, args.clips, args.full_share, args.shard)
    write_shards(args.out, order)


if __name__ == '__main__':
    main()
