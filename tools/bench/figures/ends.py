"""How soon an answer ends that somebody cancels, or whose time is over: the worst of several.

Through a model process, as a node asks it, with the scripted engine: in each stage it sits in a
call of half a second that nothing interrupts, as a chip's library does. Measured from the cancel,
or from the deadline, to the final chunk in the asking process.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.figure import Figure

if TYPE_CHECKING:
    from edge_vlm_ros.core import StoredFrame
    from edge_vlm_ros.serving import AnswerStream, ModelProcess

ROUNDS = 10
STEP_S = 0.5
INTO_S = 0.15
_NS_PER_MS = 1e6
_SLOW = {
    'queued': 'prefill_call_s',
    'encoding': 'encode_tile_s',
    'prefilling': 'prefill_call_s',
    'decoding': 'decode_s',
    'loading': 'load_s',
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question that has got as far as a stage.

    Attributes:
        stream: Its answer.
        is_over: Set with the final chunk.
    """

    stream: AnswerStream
    is_over: threading.Event


def measure() -> Iterator[Figure]:
    """Cancel, and let time run out, in every stage."""
    for stage in _SLOW:
        with _process(stage) as process:
            cancels = [_cancel_ms(process, stage) for _ in range(_rounds(stage))]
        yield Figure(f'cancel_{stage}_worst', max(cancels), 'ms', goal='value < 200')
    for stage in _SLOW:
        with _process(stage) as process:
            late = [_late_ms(process, stage) for _ in range(_rounds(stage))]
        yield Figure(f'deadline_{stage}_late_worst', max(late), 'ms', goal='value < 50')


def _rounds(stage: str) -> int:
    return 1 if stage == 'loading' else ROUNDS


@contextmanager
def _process(stage: str) -> Iterator[ModelProcess]:
    """Start a model process that is slow in one stage; it is loaded, or it loads."""
    from edge_vlm_ros.serving import ModelProcess, ModelSpec

    seconds = 20 * STEP_S if stage == 'loading' else STEP_S
    script = f'answers: [{{answer: "word word word"}}]\nlatency: {{{_SLOW[stage]}: {seconds}}}\n'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'script.yaml'
        path.write_text(script, encoding='utf-8')
        process = ModelProcess(ModelSpec('scripted', str(path)))
        process.start()
        try:
            _wait_for(lambda: process.state.is_ready or stage == 'loading')
            yield process
        finally:
            process.close()


def _cancel_ms(process: ModelProcess, stage: str) -> float:
    asked = _ask(process, stage)
    _wait_for(partial(_is_there, asked, stage))
    time.sleep(INTO_S)  # Into the call.
    started_ns = time.monotonic_ns()
    asked.stream.cancel()
    asked.is_over.wait(60)
    taken_ms = (time.monotonic_ns() - started_ns) / _NS_PER_MS
    _rest(process)
    return taken_ms


def _late_ms(process: ModelProcess, stage: str) -> float:
    deadline_ns = time.monotonic_ns() + round((INTO_S + 0.05) * 1e9)
    if stage == 'decoding':  # Two tokens come first.
        deadline_ns += round(2 * STEP_S * 1e9)
    asked = _ask(process, stage, deadline_ns)
    asked.is_over.wait(60)
    late_ms = (time.monotonic_ns() - deadline_ns) / _NS_PER_MS
    _rest(process)
    return max(0.0, late_ms)


def _ask(process: ModelProcess, stage: str, deadline_ns: int = 0) -> _Asked:
    from edge_vlm_ros.core import AnswerChunk, Question

    over = threading.Event()

    def on_chunk(chunk: AnswerChunk) -> None:
        if chunk.done:
            over.set()

    if stage == 'queued':
        before = process.ask(Question('The one before'))
        _wait_for(lambda: before.begun_ns > 0)
    question = Question('What is it?', frames=(_frame(),), deadline_ns=deadline_ns)
    return _Asked(process.ask(question, on_chunk), over)


def _is_there(asked: _Asked, stage: str) -> bool:
    if stage in {'queued', 'loading'}:
        return True
    return asked.stream.first_text_ns > 0 if stage == 'decoding' else asked.stream.begun_ns > 0


def _rest(process: ModelProcess) -> None:
    """Let the chip come to the end of what it was at."""
    process.cancel()
    time.sleep(STEP_S)


def _frame() -> StoredFrame:
    """Make a frame that was not seen before, or its features would be kept."""
    from edge_vlm_ros.core import FrameSource, RawImage, StoredFrame

    image = RawImage('rgb8', 8, 8, 24, bytes(192))
    return StoredFrame(FrameSource('front'), time.monotonic_ns(), image, time.monotonic_ns())


def _wait_for(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.002)
