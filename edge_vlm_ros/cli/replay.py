"""`edge-vlm replay`: a recording, its watches and questions, and how they did."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from edge_vlm_ros.cli.exits import ExitCode
from edge_vlm_ros.cli.main import complain
from edge_vlm_ros.cli.model_spec import spec_of
from edge_vlm_ros.cli.opened import opened
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.cli.progress import ProgressLine
from edge_vlm_ros.core import BadRequestError, chip_named
from edge_vlm_ros.harmless import harmless
from edge_vlm_ros.replay import (
    Played,
    Player,
    ReplaySettings,
    as_text,
    open_recording,
    read_labels,
    read_questions,
    read_values,
    report_of,
    watches_of,
    worse_than,
)
from edge_vlm_ros.watch import WatchSpec

DEMO = Path(__file__).resolve().parents[1] / 'demo' / 'recordings' / 'ball_in_the_way.mp4'
DEMO_WATCH = 'blocked: Is the way ahead clear? -> no'


def run(args: Namespace) -> int:
    """Play a recording; print the report.

    Returns:
        The exit code: `WORSE` where it is worse than the baseline.

    Raises:
        EdgeVlmError: A file cannot be read, or the model cannot be loaded.
    """
    if args.recording == 'demo' and not Path('demo').exists():
        args.recording = str(DEMO)
        args.watch = args.watch or [DEMO_WATCH]
        args.labels = args.labels or DEMO.with_suffix('.labels.json')
    chip_named(args.chip)
    specs = [spec for text in args.watch for spec in watches_of(text)]
    _check_names(specs)
    labels = read_labels(args.labels) if args.labels else {}
    for name in labels.keys() - {spec.name for spec in specs}:
        complain(f'{args.labels} has labels of {name}, which is not played')
    baseline: Any = read_values(args.baseline) if args.baseline else None
    if baseline is not None and not isinstance(baseline, dict):
        raise BadRequestError(f'{args.baseline} is no report of a replay')
    played = _play(args, specs)
    report = report_of(played, labels)
    if args.to is not None:
        _write(args.to, played, report, specs, labels)
    stream().write(_as_json(report) if args.json else f'{harmless(as_text(report))}\n')
    worse = worse_than(report, baseline) if baseline is not None else []
    for line in worse:
        complain(f'worse than {args.baseline}: {line}')
    return ExitCode.WORSE if worse else ExitCode.DONE


def _play(args: Namespace, specs: list[WatchSpec]) -> Played:
    recording = open_recording(args.recording, dict(args.camera), args.fps)
    questions = read_questions(args.questions) if args.questions else []
    spec = spec_of(args)
    settings = ReplaySettings(look_s=args.look_s)
    with opened(spec) as backend, ProgressLine('replay') as progress:
        player = Player(
            recording,
            lambda question: backend.ask(question).answer(),
            specs,
            questions,
            settings=settings,
            on_progress=lambda seconds: progress.say(f'{seconds:.0f} s played'),
        )
        return player.play()


def _check_names(specs: list[WatchSpec]) -> None:
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise BadRequestError(f'two watches are called {name}')


def _write(folder: Path, played: Played, report: Any, specs: list[WatchSpec], labels: Any) -> None:
    from edge_vlm_ros.replay.picture import draw

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'report.json').write_text(_as_json(report), encoding='utf-8')
        lines = [json.dumps(record, ensure_ascii=False) + '\n' for record in played.records]
        (folder / 'replay.jsonl').write_text(''.join(lines), encoding='utf-8')
        draw(played, specs, labels, folder / 'replay.png')
    except OSError as error:
        raise BadRequestError(f'cannot write to {folder}: {error.strerror}') from error


def _as_json(report: Any) -> str:
    return json.dumps(report, ensure_ascii=False, indent=2) + '\n'
