"""Train the demo model on CPU cores, by wall clock, going on from what is there.

Three stages: `sight` (the vision tower learns the code of codes.py) and `words` (the language
model learns to read that code) run side by side, one process each; then `sight` goes on with two
processes; then `joint` trains everything with two. Each stage keeps its state in the output
folder, with the minutes it has spent.

    python -m tools.demo_model.train --data DIR --out DIR --minutes 100
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch

from tools.demo_model import data, tokenizer
from tools.demo_model.crew import Crew, crews, side_by_side
from tools.demo_model.losses import DenseHead, Sight, TrackHead, autocast
from tools.demo_model.model import DemoModel
from tools.demo_model.packing import Packer
from tools.demo_model.size import ModelSize
from tools.demo_model.stage import (
    Plan,
    Stage,
    backward,
    joint_rate,
    optimisers,
    step,
    warm_rate,
)
from tools.demo_model.steps import CodedSteps, JointSteps, Step
from tools.demo_model.teach import Lessons, Teacher, stack_pixels

SHARES: Final = (0.19, 0.155)  # of all minutes: sight beside words, then sight alone
PROCESSES: Final = 2
SIGHT_RATE: Final = 0.3  # of the vision tower in the joint stage: it can see by then
CODED_UNTIL: Final = 0.6  # share of the joint stage with coded scenes among the rendered ones


def open_lessons(plan: Plan, *key: int) -> Lessons:
    """Return the lessons of one process; `key` makes its random numbers its own."""
    rng = np.random.default_rng((plan.seed, *key))
    teacher = Teacher(int(rng.integers(1 << 30)))
    packer = Packer.from_folder(plan.out, ModelSize().tokens)
    return Lessons(data.FrameStore(plan.data), teacher, packer, rng)


def train_sight(crew: Crew, plan: Plan, *, until: float = 1.0, frames: int = 64) -> None:
    """Train the vision tower and the projector on the dense loss, `until` a share of the time."""
    crew.join(plan.seed)
    model, head = DemoModel(ModelSize()), DenseHead(ModelSize().vision_width)
    parts = {'vision': model.vision_model, 'mlp1': model.mlp1, 'head': head}
    stage = Stage('sight', plan, quiet=crew.rank > 0)
    stage.load(parts)
    lessons = open_lessons(plan, 0, crew.rank, int(1e4 * stage.share()))
    sight = Sight(ModelSize().width)
    made = optimisers(parts.values())
    weights = [w for m in parts.values() for w in m.parameters()]
    count = 0
    while (share := crew.agree(stage.share())) < until:
        pictures = lessons.pictures(frames)
        with autocast():
            patches, tokens = model.see(stack_pixels(pictures))
        loss = sight.loss(head, patches, tokens, pictures)
        backward(loss)
        crew.average(weights)
        step(made, weights, warm_rate(count, share))
        count += 1
        stage.note(frames * crew.size, dense=loss.item())
        stage.save(parts)
    stage.save(parts, now=True)
    crew.part()


def words_kind(count: int, share: float) -> str:
    """Return which kind of step comes next in the words stage; clips once stills are begun."""
    if count % 25 == 24:
        return 'text'
    return 'clips' if share > 0.12 and count % 3 == 2 else 'stills'


def train_words(plan: Plan) -> None:
    """Train the language model on the code of true scenes."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    model, tracker = DemoModel(ModelSize()).language_model, TrackHead(ModelSize().width)
    parts = {'language': model, 'tracker': tracker}
    stage = Stage('words', plan)
    stage.load(parts)
    if stage.share() >= 1:
        return
    lessons = open_lessons(plan, 1, int(1e4 * stage.share()))
    steps = CodedSteps(model, tracker, lessons)
    kinds: Mapping[str, Step] = {
        'text': lambda: steps.text(16),
        'clips': lambda: steps.clips(12),
        'stills': lambda: steps.stills(40),
    }
    made = optimisers(parts.values())
    weights = [w for m in parts.values() for w in m.parameters()]
    count = 0
    while (share := stage.share()) < 1:
        kind = words_kind(count, share)
        loss, seen = kinds[kind]()
        backward(loss)
        step(made, weights, warm_rate(count, share))
        count += 1
        stage.note(seen, **{kind: loss.item()})
        stage.save(parts)
    stage.save(parts, now=True)


def joint_kind(count: int, share: float) -> str:
    """Return which kind of step comes next: coded scenes at first, rendered ones to the end."""
    if count % 48 == 46:
        return 'text'
    if share < CODED_UNTIL:
        return ('stills', 'coded_clips', 'coded_stills', 'clips', 'coded_stills', 'coded_clips')[
            count % 6
        ]
    return ('stills', 'clips')[count % 2]


def train_joint(crew: Crew, plan: Plan) -> None:
    """Train everything together."""
    crew.join(plan.seed)
    steps = JointSteps(open_lessons(plan, 2, crew.rank, int(time.time())))
    stage = Stage('joint', plan, quiet=crew.rank > 0)
    if not stage.load(steps.parts):
        join_parts(plan.out, steps)
    model = steps.model
    made = optimisers([model.language_model, steps.tracker])
    made += optimisers([model.vision_model, model.mlp1, steps.head], SIGHT_RATE)
    weights = [w for m in steps.parts.values() for w in m.parameters()]
    count = 0
    while (share := crew.agree(stage.share())) < 1:
        kind = joint_kind(count, share)
        loss, seen = steps.kinds[kind]()
        backward(loss)
        crew.average(weights)
        step(made, weights, joint_rate(count, share))
        count += 1
        stage.note(seen * crew.size, **{kind: loss.item()})
        stage.save(steps.parts)
    stage.save(steps.parts, now=True)
    crew.part()


def join_parts(out: Path, steps: JointSteps) -> None:
    """Load what the first two stages made."""
    sight, words = torch.load(out / 'sight.pt'), torch.load(out / 'words.pt')
    steps.model.vision_model.load_state_dict(sight['vision'])
    steps.model.mlp1.load_state_dict(sight['mlp1'])
    steps.head.load_state_dict(sight['head'])
    steps.model.language_model.load_state_dict(words['language'])
    steps.tracker.load_state_dict(words['tracker'])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--data', type=Path, default=Path('build/demo_model/data'))
    parser.add_argument('--out', type=Path, default=Path('build/demo_model/run'))
    parser.add_argument('--minutes', type=float, default=90.0, help='of all stages together')
    parser.add_argument('--shares', type=float, nargs=2, default=SHARES, metavar=('A', 'B'))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
    if not (args.out / 'tokenizer.json').exists():
        tokenizer.save(tokenizer.learn(), args.out)
    both, alone = (s * args.minutes for s in args.shares)
    words = Plan(args.data, args.out, both)
    sight = Plan(args.data, args.out, both + alone)
    side_by_side(
        [
            (train_sight, (Crew(), sight), {'until': both / (both + alone)}),
            (train_words, (words,), {}),
        ]
    )
    side_by_side([(train_sight, (crew, sight), {}) for crew in crews(PROCESSES)])
    joint = Plan(args.data, args.out, args.minutes - both - alone)
    side_by_side([(train_joint, (crew, joint), {}) for crew in crews(PROCESSES)])


if __name__ == '__main__':
    main()
