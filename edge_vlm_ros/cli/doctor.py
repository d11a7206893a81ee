"""`edge-vlm doctor`: what of the chain is here, and what to do about what is not."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vlm_ros.cli.axera_probes import find_axera
from edge_vlm_ros.cli.exits import ExitCode
from edge_vlm_ros.cli.findings import Finding, State, as_text
from edge_vlm_ros.cli.machine import Machine, this_machine
from edge_vlm_ros.cli.middleware_probes import find_shared_memory
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.cli.probes import find_ros, middleware
from edge_vlm_ros.cli.python_probes import find_python
from edge_vlm_ros.cli.sophgo_probes import find_sophgo
from edge_vlm_ros.cli.speed_here import find_speed

if TYPE_CHECKING:
    from edge_vlm_ros.core import Answer

TRIAL_QUESTION = 'What do you see?'
_CHAIN = 'The cpu chip with the demo model'
_MODELS = 'Models'


def run(args: Namespace) -> int:
    """Look at everything, print what was found.

    Returns:
        0 when the cpu chip answers with the demo model and each server that was named is well,
        else 3.
    """
    servers = list(_find_servers(args))
    findings = [*servers, *_look(tuple(args.model_dir))]
    is_bad = any(finding.state in {State.MISSING, State.WARNING} for finding in servers)
    works = findings[-1].state is State.OK and not is_bad
    if args.json:
        report = {'works': works, 'findings': [finding.fields() for finding in findings]}
        json.dump(report, stream(), ensure_ascii=False, indent=2)
        stream().write('\n')
    else:
        stream().write(f'{as_text(findings)}\n')
    return ExitCode.DONE if works else ExitCode.NOT_USABLE


def _look(model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Find one thing after the other; the trial of the whole chain comes last."""
    python = find_python()
    yield from python
    yield from find_ros()
    yield from find_shared_memory(middleware())
    machine = this_machine()
    yield from find_sophgo(machine)
    yield from find_axera(machine)
    missing = [finding.name for finding in python if finding.state is State.MISSING]
    if missing:
        found = f'not tried without {", ".join(missing)}'
        yield Finding(_CHAIN, 'trial', State.MISSING, found, 'install what is missing above')
        return
    yield from _find_packages()
    yield from _find_models(model_dirs)
    yield from _check_models(machine, model_dirs)
    yield from find_speed(machine, model_dirs)
    yield _try_chain(model_dirs)


def _find_servers(args: Namespace) -> Iterator[Finding]:
    """Ask the servers that were named, if any."""
    if not args.server:
        return
    from edge_vlm_ros.cli.server_options import options_of
    from edge_vlm_ros.cli.server_probes import find_servers

    yield from find_servers(args.model, options_of(args))


def _find_packages() -> Iterator[Finding]:
    """Say which chips and families other packages bring."""
    from edge_vlm_ros.cli.package_probes import find_packages

    yield from find_packages()


def _find_models(model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Say which models of the catalogue are on this disk."""
    from edge_vlm_ros.cli.model_list import list_models
    from edge_vlm_ros.models.by_name import REINSTALL

    absent: dict[str, list[str]] = {}
    for model in list_models(model_dirs):
        name = f'{model.name} ({model.chip})'
        if model.folder:
            yield Finding(_MODELS, name, State.OK, model.folder)
        elif model.remedy == REINSTALL:
            yield Finding(_MODELS, name, State.MISSING, model.problem, model.remedy)
        else:
            absent.setdefault(model.chip, []).append(model.name)
    for chip, names in absent.items():
        remedy = f'edge-vlm models fetch NAME --chip {chip}'
        yield Finding(_MODELS, f'for {chip}', State.ABSENT, ', '.join(names), remedy)


def _check_models(machine: Machine, model_dirs: tuple[Path, ...]) -> Iterator[Finding]:
    """Say whether the models on this disk fit the chip that is here."""
    from edge_vlm_ros.cli.memory_fit import check_models

    yield from check_models(machine, model_dirs)


def _try_chain(model_dirs: tuple[Path, ...]) -> Finding:
    """Load the demo model and ask it about a grey picture: the only proof that all parts fit."""
    started_s = time.monotonic()
    try:
        answer = _ask_demo(model_dirs)
    except Exception as error:  # noqa: BLE001 (whatever it is, the doctor reports it)
        message = ' '.join(f'{type(error).__name__}: {error}'.split())
        return Finding(_CHAIN, 'trial', State.MISSING, message, 'reinstall edge_vlm_ros')
    if not answer.success or not answer.text:
        found = f'{answer.error_code.name}: {answer.message}'
        return Finding(_CHAIN, 'trial', State.MISSING, found, 'reinstall edge_vlm_ros')
    took_s = time.monotonic() - started_s
    found = (
        f'answered {answer.text!r} about a grey picture, {took_s:.1f} s with loading, first token'
        f' after {answer.timings.time_to_first_token_s:.2f} s'
    )
    return Finding(_CHAIN, 'trial', State.OK, found)


def _ask_demo(model_dirs: tuple[Path, ...]) -> Answer:
    import numpy as np

    from edge_vlm_ros.cli.file_frames import stored
    from edge_vlm_ros.cli.opened import opened
    from edge_vlm_ros.core import Question
    from edge_vlm_ros.serving import ModelSpec

    grey = stored('doctor', np.full((96, 128, 3), 128, np.uint8), 0.0)
    with opened(ModelSpec('cpu', 'demo', model_dirs=model_dirs)) as backend:
        return backend.ask(Question(TRIAL_QUESTION, frames=(grey,))).answer(timeout=60)
