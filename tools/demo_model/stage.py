"""One stage of training: its plan, clock, log, saved state, learning rate and steps."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

SAVE_SECONDS: Final = 150.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a stage reads and writes, and how long it runs."""

    data: Path
    out: Path
    minutes: float
    seed: int = 1


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


def backward(loss: Tensor) -> None:
    """Work the gradients out."""
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def step(made: list[torch.optim.Optimizer], weights: list[nn.Parameter], scale: float) -> None:
    """Clip gradients and take one step at `scale` of the base rates."""
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimiser in made:
        for group in optimiser.param_groups:
            group['lr'] = group['base'] * scale
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
