"""Score the exported demo model on fresh held-out scenes.

Scenes, looks, wordings and outside questions come from heldout.py; frames are rendered at
640 x 480 and squashed with PIL's bicubic filter. An answer counts when greedy decoding gives it
exactly.

    python -m tools.demo_model.score --model edge_vlm_ros/demo/model --set DIR --save
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edge_vlm_ros.demo.world import CLIP_FRAMES
from tools.demo_model import heldout
from tools.demo_model.asker import STILL_KINDS
from tools.demo_model.data import MEAN, STD
from tools.demo_model.heldout import HeldOutAsker
from tools.demo_model.packing import ASSISTANT, Packer
from tools.demo_model.runtime import OnnxModel, Past
from tools.demo_model.sampler import SceneSampler
from tools.demo_model.scenes import Seen, look
from tools.demo_model.wordings import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tools.demo_model.asker import Dialogue

TARGETS: Final = {
    'describe': 75,
    'describe: objects': 92,
    'count': 95,
    'existence': 95,
    'colour': 95,
    'identity': 95,
    'place': 95,
    'relation': 88,
    'nearest': 88,
    'path': 92,
    'motion': 85,
    'follow-up': 88,
    'absent': 88,
    'outside': 90,
}
_THING: Final = re.compile(r'a (\w+ \w+ (?:on|in) the \w+)', re.IGNORECASE)


@dataclass(slots=True)
class Row:
    """Right answers and questions of one kind, and the scenes they were about."""

    right: float = 0
    asked: int = 0
    scenes: set[str] = field(default_factory=set)

    def add(self, scene: str, right: float, asked: int = 1) -> None:
        """Count answers."""
        self.right += right
        self.asked += asked
        self.scenes.add(scene)

    @property
    def percent(self) -> float:
        """Return the share of right answers."""
        return 100 * self.right / max(1, self.asked)


def render_set(folder: Path, stills: int, clips: int) -> None:
    """Render the held-out scenes, squashed, with their truth."""
    from tools.demo_model.render import SceneRenderer, describe_view, draw_look, squash

    folder.mkdir(parents=True, exist_ok=True)
    renderer = SceneRenderer(640, 480)
    rng = np.random.default_rng(heldout.LOOK_SEED)
    truth: dict[str, Any] = {'stills': [], 'clips': []}
    pixels: dict[str, list[NDArray[np.uint8]]] = {'stills': [], 'clips': []}
    sampler = SceneSampler(heldout.STILL_SEED)
    for _ in range(stills):
        still = sampler.still()
        image = renderer.render(still, draw_look(rng, still.bodies), rng)
        pixels['stills'].append(squash(image)[0])
        truth['stills'].append(describe_view(look(still.bodies, still.camera)))
    sampler = SceneSampler(heldout.CLIP_SEED)
    for _ in range(clips):
        clip = sampler.clip()
        style = draw_look(rng, clip.frames[0].bodies)
        images = [squash(renderer.render(f, style, rng))[0] for f in clip.frames]
        pixels['clips'].append(np.stack(images))
        last = look(clip.frames[-1].bodies, clip.frames[-1].camera)
        truth['clips'].append({'motion': clip.motion, 'who': clip.who, **describe_view(last)})
    for kind, images in pixels.items():
        np.save(folder / f'{kind}.npy', np.stack(images))
    (folder / 'truth.json').write_text(json.dumps(truth))


def objects_right(said: str, truth: str) -> tuple[int, int]:
    """Return how many things of a description are right, matched in order, and how many count."""
    said_things, wanted = _THING.findall(said.lower()), _THING.findall(truth.lower())
    hits = sum(a == b for a, b in zip(said_things, wanted, strict=False))
    return hits, max(len(said_things), len(wanted))


class Scorer:
    """Asks one model about scenes and keeps the rows."""

    def __init__(self, folder: Path) -> None:
        self.model = OnnxModel(folder)
        tokens = json.loads((folder / 'config.json').read_text())['force_image_size'] // 28
        self.packer = Packer.from_folder(folder, tokens**2)
        self.rows: dict[str, Row] = defaultdict(Row)
        self.wrong: list[tuple[str, str, str, str, str]] = []

    def look_at(self, pixels: NDArray[np.uint8]) -> Past:
        """Read the frames, (n, px, px, 3), and return the cache up to the question."""
        if len(pixels) == 0:
            empty = np.zeros((0, 0), np.float32)
            return self.model.read_prefix(self.packer.prefix(0), empty)
        scaled = (pixels.astype(np.float32) - MEAN) / STD
        features = self.model.see(np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)))
        return self.model.read_prefix(self.packer.prefix(len(pixels)), features)

    def ask(self, scene: str, past: Past, asked: Sequence[tuple[str, Dialogue]]) -> None:
        """Ask all dialogues about one scene at once: row name and dialogue.

        The true answers are read along with the questions. Where the most likely token is the
        true one at each place, greedy decoding gives the true answer, and only there.
        """
        cut = [self.packer.segment(dialogue) for _, dialogue in asked]
        ids = np.zeros((len(cut), max(len(i) for i, _ in cut)), np.int64)
        for row, (one, _) in enumerate(cut):
            ids[row, : len(one)] = one
        logits, _ = self.model.read_on(past.rows(len(cut)), ids, keep=0)
        guesses = logits.argmax(-1)
        for row, ((name, dialogue), (one, turns)) in enumerate(zip(asked, cut, strict=True)):
            marks = np.array(turns)
            hits = np.array(one)[1:] == guesses[row, : len(one) - 1]
            good = [bool(hits[marks[1:] == t].all()) for t in range(1, len(dialogue) + 1)]
            self._count(scene, name, dialogue, good, past)

    def _count(
        self, scene: str, name: str, dialogue: Dialogue, good: list[bool], past: Past
    ) -> None:
        if len(good) > 1 and not good[0]:
            return  # a follow-up is scored when turn one was right
        self.rows[name].add(scene, good[-1])
        question, truth = dialogue[-1]
        said = truth
        if not good[-1] and len(dialogue) == 1:
            ids = self.packer.ids(question + ASSISTANT)
            said = self.packer.text(self.model.answer(past, ids, self.packer.end_id))
            self.wrong.append((name, scene, question, truth, said))
        if name == 'describe' and truth != 'Nothing.':
            self.rows['describe: objects'].add(scene, *objects_right(said, truth))


def score(model: Path, folder: Path, *, limit: int | None = None) -> Scorer:
    """Score a model folder on a rendered set."""
    scorer = Scorer(model)
    truth = json.loads((folder / 'truth.json').read_text())
    pixels = {k: np.load(folder / f'{k}.npy') for k in ('stills', 'clips')}
    asker = HeldOutAsker(random.Random(heldout.QUESTION_SEED))
    no_frame = scorer.look_at(pixels['stills'][:0])
    for i, view in enumerate(truth['stills'][:limit]):
        things = [Seen(*s) for s in view['seen']]
        asked = [(k, d) for k in STILL_KINDS if (d := asker.ask(things, k)) is not None]
        scorer.ask(f'still {i}', scorer.look_at(pixels['stills'][i][None]), asked)
        alone = [d for _, d in asked if len(d) == 1]
        question = asker.rng.choice(alone)[0][0]
        scorer.ask(f'still {i}', no_frame, [('text only', [(question, OUTSIDE)])])
    for i, view in enumerate(truth['clips'][:limit]):
        seen = [s and Seen(*s) for s in view['seen']]
        past = scorer.look_at(pixels['clips'][i])
        mover = seen[view['who']] if view['who'] >= 0 else None
        dialogue = asker.motion(view['motion'], mover)
        scorer.ask(f'clip {i}', past, [('motion', dialogue)])
        scorer.rows[f'motion: {view["motion"]}'].add(
            f'clip {i}', not any(w[:2] == ('motion', f'clip {i}') for w in scorer.wrong[-1:])
        )
        if all(s is not None or o for s, o in zip(seen, view['outside'], strict=True)):
            count = 2 + i % (CLIP_FRAMES - 1)
            things = [s for s in seen if s is not None]
            kind = asker.rng.choice([k for k in STILL_KINDS if k not in ('outside', 'follow-up')])
            if (still := asker.ask(things, kind)) is not None:
                past = scorer.look_at(pixels['clips'][i][-count:])
                scorer.ask(f'clip {i}', past, [('still, 2 to 8 frames', still)])
    return scorer


def table(scorer: Scorer) -> str:
    """Return the score table as Markdown."""
    lines = [
        '| kind | exact, % | target | scenes | questions | |',
        '|---|---:|---:|---:|---:|---|',
    ]
    names = [*TARGETS, *sorted(set(scorer.rows) - set(TARGETS))]
    for name in names:
        row, target = scorer.rows[name], TARGETS.get(name)
        verdict = '' if target is None else 'reached' if row.percent >= target else 'falls short'
        lines.append(
            f'| {name} | {row.percent:.1f} | {target or "-"} | {len(row.scenes)}'
            f' | {row.asked} | {verdict} |'
        )
    return '\n'.join(lines)


def page(scorer: Scorer) -> str:
    """Return SCORES.md."""
    return (
        '# Scores of the demo model\n\n'
        'Made by `python -m tools.demo_model.score --save` from the ONNX files in this folder,\n'
        'on fresh scenes rendered at 640 x 480 and squashed with PIL bicubic. Seeds, wordings\n'
        'and outside questions were never used in training. Greedy decoding, exact match.\n'
        'A follow-up counts when turn one was right. *describe: objects* wants colour, shape\n'
        'and place of each object together, matched in order. *still, 2 to 8 frames* are\n'
        'questions about the last frame of a clip; *text only* are asked without a frame.\n\n'
        f'{table(scorer)}\n'
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', type=Path, default=Path('edge_vlm_ros/demo/model'))
    parser.add_argument('--set', type=Path, default=Path('build/demo_model/heldout'))
    parser.add_argument('--stills', type=int, default=800, help='rendered where the set is new')
    parser.add_argument('--clips', type=int, default=330)
    parser.add_argument('--limit', type=int, help='score the first stills and clips only')
    parser.add_argument('--wrong', type=int, default=0, help='print wrong answers of each kind')
    parser.add_argument('--save', action='store_true', help='write SCORES.md beside the model')
    args = parser.parse_args()
    if not (args.set / 'truth.json').exists():
        render_set(args.set, args.stills, args.clips)
    began = time.time()
    scorer = score(args.model, args.set, limit=args.limit)
    print(table(scorer))
    print(f'{time.time() - began:.0f} s')
    shown: dict[str, int] = defaultdict(int)
    for name, scene, question, truth, said in scorer.wrong:
        shown[name] += 1
        if shown[name] <= args.wrong:
            print(f'{name} ({scene}): {question} | {truth} | {said}')
    if args.save:
        (args.model / 'SCORES.md').write_text(page(scorer))


if __name__ == '__main__':
    main()
