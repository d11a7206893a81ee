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

SHARES: Final = (0.20, 0.12)  # of all minutes: sight beside words, then sight alone
PROCESSES: Final = 2
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

    def tokens(self, code: np.ndarray) -> Tensor:
        """Return visual tokens that carry the code exactly."""
        return torch.from_numpy(code) @ self._directions


def optimisers(modules: Iterable[nn.Module]) -> list[torch.optim.Optimizer]:
    """Return Muon for the inner matrices and AdamW for the rest."""
    inner, tables, vectors = [], [], []
    for module in modules:
        for name, weight in module.named_parameters():
            if weight.ndim != 2:
                vectors.append(weight)
            elif 'embed' in name or 'cells' in name:
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
            group['base'] = group['lr']
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


def answer_loss(model: DemoModel, batch: Batch, image: Tensor) -> Tensor:
    """Return the cross entropy of the answer tokens."""
    logits = model.language_model(batch.packed, image)
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
    model = DemoModel(ModelSize())
    parts = {'language': model.language_model}
    stage = Stage('words', plan)
    stage.load(parts)
    if stage.share() >= 1:
        return
    lessons = open_lessons(plan, 1, int(1e4 * stage.share()))
    sight = Sight(ModelSize().width)
    made = optimisers(parts.values())
    weights = list(model.language_model.parameters())
    count = 0
    while (share := stage.share()) < 1:
        if count % 25 == 24:
            kind, seen = 'text', 16
            batch, image = lessons.text_only(seen), torch.zeros(seen, 0, ModelSize().width)
        elif share > 0.12 and count % 3 == 2:
            kind, seen = 'clips', clips
            batch, code = lessons.coded_clips(seen)
            image = sight.tokens(code)
        else:
            kind, seen = 'stills', scenes
            batch, code = lessons.coded_stills(seen)
            image = sight.tokens(code)
        with autocast():
            loss = answer_loss(model, batch, image)
        loss.backward()
        step(made, weights, warm_rate(count, share))
        count += 1
        stage.note(seen, **{kind: loss.item()})
        stage.save(parts)
    stage.save(parts, now=True)


def train_joint(
    crew: Crew, plan: Plan, *, frames: int = 60, asked: int = 24, clips: int = 8
) -> None:
    """Train everything together."""
    crew.join(plan.seed)
    model, head = DemoModel(ModelSize()), DenseHead(ModelSize().vision_width)
    parts: dict[str, nn.Module] = {'model': model, 'head': head}
    stage = Stage('joint', plan, quiet=crew.rank > 0)
    if not stage.load(parts):
        join_parts(plan.out, model, head)
    lessons = open_lessons(plan, 2, crew.rank, int(1e4 * stage.share()))
    sight = Sight(model.size.width)
    made = optimisers(parts.values())
    weights = [w for m in parts.values() for w in m.parameters()]
    count = 0
    while (share := crew.agree(stage.share())) < 1:
        if count % 48 == 45:
            with autocast():
                image = torch.zeros(8, 0, model.size.width)
                loss = answer_loss(model, lessons.text_only(8), image)
            stage.note(8 * crew.size, text=loss.item())
        elif count % 3 == 2:
            loss = clip_loss(model, lessons, clips)
            stage.note(clips * crew.size, clips=loss.item())
        else:
            batch, pixels, pictures = lessons.seen_stills(frames, asked)
            with autocast():
                patches, tokens = model.see(pixels)
                answers = answer_loss(model, batch, tokens[:asked])
            dense = sight.loss(head, patches, tokens, pictures)
            loss = answers + DENSE_WEIGHT * dense
            stage.note(frames * crew.size, stills=answers.item(), dense=dense.item())
        loss.backward()
        crew.average(weights)
        step(made, weights, joint_rate(count, share))
        count += 1
        stage.save(parts)
    stage.save(parts, now=True)
    crew.part()


def clip_loss(model: DemoModel, lessons: Lessons, clips: int) -> Tensor:
    """Return the answer loss of rendered clips; the vision tower is not trained on them."""
    batch, pixels, _ = lessons.seen_clips(clips)
    with autocast():
        with torch.no_grad():
            tokens = model.see(pixels)[1]
        return answer_loss(model, batch, tokens.reshape(clips, -1, model.size.width))


def join_parts(out: Path, model: DemoModel, head: DenseHead) -> None:
    """Load what the first two stages made."""
    sight = torch.load(out / 'sight.pt')
    words = torch.load(out / 'words.pt')
    model.vision_model.load_state_dict(sight['vision'])
    model.mlp1.load_state_dict(sight['mlp1'])
    head.load_state_dict(sight['head'])
    model.language_model.load_state_dict(words['language'])


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
    parser.add_argument('--minutes', type=float, default=120.0, help='of all stages together')
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
