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
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as fn
from torch import Tensor, nn

from tools.demo_model import codes, data, tokenizer
from tools.demo_model.model import DemoModel, ModelSize
from tools.demo_model.packing import Batch, Packer
from tools.demo_model.scenes import COLOURS, SHAPES
from tools.demo_model.teach import Lessons, Teacher, code_targets, stack_pixels

SHARES: Final = (0.19, 0.155)  # of all minutes: sight beside words, then sight alone
PROCESSES: Final = 2
SIGHT_RATE: Final = 0.3  # of the vision tower in the joint stage: it can see by then
CODED_UNTIL: Final = 0.6  # share of the joint stage with coded scenes among the rendered ones
TRACK_WEIGHT: Final = 1.0
DENSE_WEIGHT: Final = 0.25  # of the dense loss beside the answers
SAVE_SECONDS: Final = 150.0
MAP_CLASSES: Final = 1 + len(COLOURS) + 1 + len(SHAPES)


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a stage reads and writes, and how long it runs."""

    data: Path
    out: Path
    minutes: float
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Crew:
    """The processes of one stage, one thread each, that average their gradients."""

    rank: int = 0
    size: int = 1
    port: int = 0

    def join(self, seed: int) -> None:
        """Meet the others."""
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        if self.size > 1:
            os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(self.port))
            dist.init_process_group('gloo', rank=self.rank, world_size=self.size)

    def part(self) -> None:
        """Leave the others."""
        if self.size > 1:
            dist.destroy_process_group()

    def agree(self, share: float) -> float:
        """Return the share of the first process."""
        value = torch.tensor([share], dtype=torch.float64)
        if self.size > 1:
            dist.broadcast(value, 0)
        return float(value)

    def average(self, weights: list[nn.Parameter]) -> None:
        """Average the gradients of all processes, as one flat vector."""
        if self.size == 1:
            return
        grads = [w.grad for w in weights if w.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.size
        for grad, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


class DenseHead(nn.Module):
    """Helper of training: colour and shape of the four map cells of each patch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cells = nn.Linear(width, 4 * MAP_CLASSES)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores of colours, (n, patches, 4, 7), and of shapes."""
        cells = self.cells(patches).unflatten(-1, (4, MAP_CLASSES)).float()
        colours = 1 + len(COLOURS)
        return cells[..., :colours], cells[..., colours:]


class TrackHead(nn.Module):
    """Helper of training: what the language model must find out about motion, early on.

    After the second layer, the image places tell how each thing has moved since the first frame.
    """

    layer = 1

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.tracks = nn.Linear(width, codes.TRACK)
        nn.init.zeros_(self.tracks.weight)
        nn.init.zeros_(self.tracks.bias)

    def loss(self, watched: list[Tensor], tracks: Tensor) -> Tensor:
        """Return the loss per frame."""
        found = self.tracks(self.norm(watched[self.layer])).float()
        frames = tracks.shape[0] * tracks.shape[1] / ModelSize().tokens
        return (found - tracks).square().sum() / frames


class Sight:
    """The dense loss: visual tokens against their code, patches against the instance map."""

    def __init__(self, width: int) -> None:
        self._directions = torch.from_numpy(codes.directions(width))

    def loss(
        self, head: DenseHead, patches: Tensor, tokens: Tensor, pictures: list[data.Picture]
    ) -> Tensor:
        """Return the loss per frame."""
        code = tokens.float() @ self._directions.T
        error = (code - code_targets(pictures)).square().sum() / (2 * len(pictures))
        colour, shape = data.map_labels(pictures)
        colours, shapes = head(patches)
        return (
            error
            + fn.cross_entropy(colours.flatten(0, 2), colour.flatten(), ignore_index=-1)
            + 2 * fn.cross_entropy(shapes.flatten(0, 2), shape.flatten(), ignore_index=-1)
        )

    def tokens(self, code: Tensor) -> Tensor:
        """Return visual tokens that carry the code exactly."""
        return code.flatten(1, -2) @ self._directions


def optimisers(modules: Iterable[nn.Module], rate: float = 1.0) -> list[torch.optim.Optimizer]:
    """Return Muon for the inner matrices and AdamW for the rest, at a share of the rates."""
    inner, tables, vectors = [], [], []
    for module in modules:
        for name, weight in module.named_parameters():
            if weight.ndim != 2:
                vectors.append(weight)
            elif 'embed' in name or 'cells' in name or 'tracks' in name:
                tables.append(weight)
            else:
                inner.append(weight)
    groups = [{'params': tables, 'weight_decay': 0.02}, {'params': vectors, 'weight_decay': 0.0}]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW([g for g in groups if g['params']], lr=1e-3, betas=(0.9, 0.98)),
        torch.optim.Muon(
            inner, lr=3e-3, weight_decay=0.02, ns_steps=5, adjust_lr_fn='match_rms_adamw'
        ),
    ]
    for optimiser in made:
        for group in optimiser.param_groups:
            group['base'] = rate * group['lr']
    return made


def step(made: list[torch.optim.Optimizer], weights: list[nn.Parameter], scale: float) -> None:
    """Clip gradients and take one step at `scale` of the base rates."""
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimiser in made:
        for group in optimiser.param_groups:
            group['lr'] = group['base'] * scale
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


class Stage:
    """The wall clock, log and saved state of one stage."""

    def __init__(self, name: str, plan: Plan, *, quiet: bool = False) -> None:
        self._path = plan.out / f'{name}.pt'
        self._name = name
        self._total = 60 * plan.minutes
        self._began = time.time()
        self._spent = 0.0
        self._saved = self._logged = time.time()
        self._quiet = quiet
        self._means: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def load(self, modules: dict[str, nn.Module]) -> bool:
        """Load the state where there is one."""
        if not self._path.exists():
            return False
        state = torch.load(self._path)
        for name, module in modules.items():
            if name in state:  # helpers of training may start fresh
                module.load_state_dict(state[name])
        self._spent = state['spent']
        return True

    def share(self) -> float:
        """Return the share of the stage's time that is spent, 1 at the end."""
        return min(1.0, (self._spent + time.time() - self._began) / max(self._total, 1e-9))

    def note(self, seen: int, **losses: float) -> None:
        """Keep running means and counts for the log."""
        for key, value in losses.items():
            mean = self._means.get(key, value)
            self._means[key] = 0.97 * mean + 0.03 * value
            self._counts[key] = self._counts.get(key, 0) + seen
        if not self._quiet and time.time() - self._logged > 30:
            self._logged = time.time()
            parts = [f'{k} {v:.4f} ({self._counts[k]})' for k, v in self._means.items()]
            print(f'{self._name} {100 * self.share():.1f} %: {", ".join(parts)}', flush=True)

    def save(self, modules: dict[str, nn.Module], *, now: bool = False) -> None:
        """Save every few minutes, or now."""
        if self._quiet or not (now or time.time() - self._saved > SAVE_SECONDS):
            return
        self._saved = time.time()
        state: dict[str, Any] = {k: m.state_dict() for k, m in modules.items()}
        state['spent'] = self._spent + time.time() - self._began
        part = self._path.with_suffix('.part')
        torch.save(state, part)
        part.rename(self._path)


def warm_rate(count: int, share: float) -> float:
    """Return the learning rate scale of the first two stages: down to a quarter at the end."""
    return min(1.0, (count + 1) / 40) * min(1.0, 0.25 + (1 - share) / 0.3)


def joint_rate(count: int, share: float) -> float:
    """Return the learning rate scale of the joint stage: linear to zero over the last half."""
    return 0.8 * min(1.0, (count + 1) / 40) * max(0.01, min(1.0, (1 - share) / 0.55))


def autocast() -> torch.autocast:
    """Return the context for bfloat16 on CPU."""
    return torch.autocast('cpu', dtype=torch.bfloat16)


def answer_loss(
    model: DemoModel, batch: Batch, image: Tensor, watched: list[Tensor] | None = None
) -> Tensor:
    """Return the cross entropy of the answer tokens."""
    logits = model.language_model(batch.packed, image, watched)
    return fn.cross_entropy(logits.float(), batch.wanted_ids)


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
    if stage.share() < until:
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
        loss.backward()
        crew.average(weights)
        step(made, weights, warm_rate(count, share))
        count += 1
        stage.note(frames * crew.size, dense=loss.item())
        stage.save(parts)
    stage.save(parts, now=True)
    crew.part()


def train_words(plan: Plan, *, scenes: int = 40, clips: int = 12) -> None:
    """Train the language model on the code of true scenes."""
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    model, head = DemoModel(ModelSize()), TrackHead(ModelSize().width)
    parts = {'language': model.language_model, 'tracker': head}
    stage = Stage('words', plan)
    stage.load(parts)
    if stage.share() >= 1:
        return
    lessons = open_lessons(plan, 1, int(1e4 * stage.share()))
    sight = Sight(ModelSize().width)
    made = optimisers(parts.values())
    weights = [w for m in parts.values() for w in m.parameters()]
    count = 0
    while (share := stage.share()) < 1:
        watched: list[Tensor] | None = None
        if count % 25 == 24:
            kind, seen = 'text', 16
            batch, image = lessons.text_only(seen), torch.zeros(seen, 0, ModelSize().width)
        elif share > 0.12 and count % 3 == 2:
            kind, seen, watched = 'clips', clips, []
            batch, code, tracks = lessons.coded_clips(seen)
            image = sight.tokens(code)
        else:
            kind, seen = 'stills', scenes
            batch, code = lessons.coded_stills(seen)
            image = sight.tokens(code)
        with autocast():
            loss = answer_loss(model, batch, image, watched)
        if watched:
            loss = loss + TRACK_WEIGHT * head.loss(watched, tracks)
        loss.backward()
        step(made, weights, warm_rate(count, share))
        count += 1
        stage.note(seen, **{kind: loss.item()})
        stage.save(parts)
    stage.save(parts, now=True)


class JointSteps:
    """The kinds of step of the joint stage; each returns its loss and what to log of it."""

    def __init__(self, lessons: Lessons) -> None:
        size = ModelSize()
        self.model = DemoModel(size)
        self.head, self.tracker = DenseHead(size.vision_width), TrackHead(size.width)
        self.parts: dict[str, nn.Module] = {
            'model': self.model,
            'head': self.head,
            'tracker': self.tracker,
        }
        self._lessons, self._sight = lessons, Sight(size.width)

    def text(self, rows: int = 8) -> tuple[Tensor, int]:
        """Questions without a frame."""
        image = torch.zeros(rows, 0, self.model.size.width)
        with autocast():
            return answer_loss(self.model, self._lessons.text_only(rows), image), rows

    def stills(self, frames: int = 32) -> tuple[Tensor, int]:
        """Rendered frames, everything trained."""
        batch, pixels, pictures = self._lessons.seen_stills(frames, frames)
        with autocast():
            patches, tokens = self.model.see(pixels)
            answers = answer_loss(self.model, batch, tokens)
        dense = self._sight.loss(self.head, patches, tokens, pictures)
        return answers + DENSE_WEIGHT * dense, frames

    def clips(self, count: int = 11) -> tuple[Tensor, int]:
        """Rendered clips; the vision tower is not trained on them."""
        batch, pixels, tracks = self._lessons.seen_clips(count)
        with autocast(), torch.no_grad():
            tokens = self.model.see(pixels)[1].reshape(count, -1, self.model.size.width)
        return self._with_tracks(batch, tokens, tracks), count

    def coded_stills(self, count: int = 40) -> tuple[Tensor, int]:
        """True scenes, not rendered: the language model alone."""
        batch, code = self._lessons.coded_stills(count)
        with autocast():
            return answer_loss(self.model, batch, self._sight.tokens(code)), count

    def coded_clips(self, count: int = 16) -> tuple[Tensor, int]:
        """True clips, not rendered: the language model alone."""
        batch, code, tracks = self._lessons.coded_clips(count)
        return self._with_tracks(batch, self._sight.tokens(code), tracks), count

    def _with_tracks(self, batch: Batch, tokens: Tensor, tracks: Tensor) -> Tensor:
        watched: list[Tensor] = []
        with autocast():
            answers = answer_loss(self.model, batch, tokens, watched)
        return answers + TRACK_WEIGHT * self.tracker.loss(watched, tracks)


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
        loss, seen = getattr(steps, kind)()
        loss.backward()
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])


def _crews(size: int) -> list[Crew]:
    port = _free_port()
    return [Crew(rank, size, port) for rank in range(size)]


def _side_by_side(
    stages: list[tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]],
) -> None:
    """Run functions in processes of their own and wait for all."""
    context = mp.get_context('spawn')
    running = [context.Process(target=f, args=a, kwargs=k) for f, a, k in stages]
    for process in running:
        process.start()
    for process in running:
        process.join()
    if any(process.exitcode for process in running):
        raise SystemExit('a training process failed')


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
    _side_by_side(
        [
            (train_sight, (Crew(), sight), {'until': both / (both + alone)}),
            (train_words, (words,), {}),
        ]
    )
    _side_by_side([(train_sight, (crew, sight), {}) for crew in _crews(PROCESSES)])
    joint = Plan(args.data, args.out, args.minutes - both - alone)
    _side_by_side([(train_joint, (crew, joint), {}) for crew in _crews(PROCESSES)])


if __name__ == '__main__':
    main()
