"""`edge-vlm ask`: questions about files, answered as the tokens come."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

from edge_vlm_ros.cli.answer_fields import fields_of_answer
from edge_vlm_ros.cli.ending import SIGNALS, code_of
from edge_vlm_ros.cli.exits import exit_code_of
from edge_vlm_ros.cli.file_frames import frames_of_images, frames_of_video
from edge_vlm_ros.cli.machine import this_machine
from edge_vlm_ros.cli.main import complain
from edge_vlm_ros.cli.model_spec import spec_of
from edge_vlm_ros.cli.opened import opened
from edge_vlm_ros.cli.output import stream
from edge_vlm_ros.cli.speed_here import Run, why_slower
from edge_vlm_ros.core import (
    NS_PER_S,
    YES_NO,
    Answer,
    EdgeVlmError,
    ErrorCode,
    FinishReason,
    Question,
    SamplingOptions,
    SteadyClock,
    chip_named,
)
from edge_vlm_ros.harmless import harmless
from edge_vlm_ros.models import is_path, load_catalogue
from edge_vlm_ros.serving import AnswerStream, Backend, ModelInfo
from edge_vlm_ros.serving.model_info import ChipModelInfo

DEFAULT_FRAMES = 8
_REQUEST_ID = 'edge-vlm'
_ended_by: list[int] = []
"""The signal that took a question back."""


def run(args: Namespace) -> int:
    """Ask; print the answer, or as JSON what became of it.

    Returns:
        The exit code.

    Raises:
        EdgeVlmError: Before anything was asked, and no JSON was wanted.
        KeyboardInterrupt: Ctrl-C before the last question was asked.
    """
    try:
        chip_named(args.chip)
        questions = list(_questions(args))
        spec = spec_of(args)
        if args.verbose:
            _note(f'loading {args.model} on {args.chip} ...')
        started_s = time.monotonic()
        with opened(spec) as backend:
            if args.verbose:
                _note(f'loaded in {time.monotonic() - started_s:.1f} s')
            answers = _ask_all(backend, questions, args)
            if args.stats:
                _note_slowness(answers[-1], backend.info)
    except EdgeVlmError as error:
        if not args.json:
            raise
        answers = [_refusal(error, args)]
    return _report(answers, args)


def _questions(args: Namespace) -> Iterator[Question]:
    """Make the questions of the conversation; frames go with the first."""
    frames = frames_of_images(args.image)
    if args.video is not None:
        count = DEFAULT_FRAMES if args.frames is None else args.frames
        frames += frames_of_video(args.video, count=count, last_s=args.last)
    sampling = SamplingOptions(
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        seed=_seed(args),
        repetition_penalty=args.repetition_penalty,
    )
    choices = YES_NO if args.yes_no else tuple(map(_whole_text, args.choice))
    texts = [*args.turn, args.question]
    for number, text in enumerate(texts):
        yield Question(
            _whole_text(text),
            request_id=_REQUEST_ID if number == len(args.turn) else f'{_REQUEST_ID}-{number + 1}',
            frames=frames if number == 0 else (),
            session_id=_REQUEST_ID if args.turn else '',
            system_prompt=_whole_text(args.system),
            sampling=sampling,
            # The question's own; the turns before it are free text.
            choices=choices if number == len(args.turn) else (),
            stop=tuple(map(_whole_text, args.stop)),
        )


def _seed(args: Namespace) -> int:
    """Return the seed asked for, else a new one; the most likely token needs none."""
    if args.seed is not None:
        return int(args.seed)
    return secrets.randbits(32) if args.temperature > 0 else 0


def _whole_text(text: str) -> str:
    """Replace what was not UTF-8 on the command line; Python hands it over as lone surrogates."""
    return text.encode('utf-8', 'surrogateescape').decode('utf-8', 'replace')


def _ask_all(backend: Backend, questions: list[Question], args: Namespace) -> list[Answer]:
    """Ask in turn, until one fails; only the last one's words go to standard output."""
    clock = SteadyClock()
    until_ns = clock.now_ns() + round(args.timeout * NS_PER_S) if args.timeout else 0
    answers: list[Answer] = []
    for question in questions:
        asked = replace(question, asked_ns=clock.now_ns(), deadline_ns=until_ns)
        is_last = question is questions[-1]
        if args.verbose and not is_last:
            _note(f'> {question.text}')
        answer = _follow(backend, asked, show=is_last and not args.json)
        if args.verbose and not is_last:
            _note(answer.text)
        answers.append(answer)
        if not answer.success:
            break
    return answers


def _follow(backend: Backend, question: Question, *, show: bool) -> Answer:
    """Ask one question and write its words as they come; Ctrl-C ends the answer early."""
    answers = backend.ask(question)
    with _cancelled_by_signals(answers):
        for chunk in answers:
            if show and chunk.delta:
                stream().write(harmless(chunk.delta))
                stream().flush()
        answer = answers.answer()
        if show and (answer.success or answer.text) and not answer.text.endswith('\n'):
            stream().write('\n')
            stream().flush()
    return answer


@contextmanager
def _cancelled_by_signals(answers: AnswerStream) -> Iterator[None]:
    """Let Ctrl-C and the like take the question back; a second one interrupts as ever.

    No exception, which could fall between a write and the next chunk. The handler runs in the
    midst of the loop above, so another thread takes the locks that a cancel needs.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def cancel(number: int, _frame: FrameType | None) -> None:
        restore()
        _ended_by.append(number)
        threading.Thread(target=answers.cancel, name='cancel', daemon=True).start()

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, cancel)
    try:
        yield
    finally:
        restore()


def _refusal(error: EdgeVlmError, args: Namespace) -> Answer:
    """Return what failed before it was asked, as an answer."""
    failed = Answer.failed(_REQUEST_ID, error)
    return replace(failed, model=args.model, chip=args.chip)


def print_death(message: str, args: Namespace) -> None:
    """Print, as JSON, what became of a question whose process died."""
    died = EdgeVlmError(message, ErrorCode.ENGINE_DIED)
    _print_json(fields_of_answer(_refusal(died, args)))


def _print_json(fields: dict[str, Any]) -> None:
    json.dump(fields, stream(), ensure_ascii=False, indent=2)
    stream().write('\n')


def _report(answers: list[Answer], args: Namespace) -> int:
    """Say what is left to say about the last answer, and return its exit code."""
    answer = answers[-1]
    if args.json:
        fields: dict[str, Any] = fields_of_answer(answer)
        if args.turn:
            fields['turns'] = [fields_of_answer(earlier) for earlier in answers[:-1]]
        _print_json(fields)
    if args.stats:
        _note(cost_of(answer))
    if not answer.success:
        complain(answer.message or answer.error_code.name.lower())
    code = exit_code_of(answer.error_code)
    if answer.finish_reason is FinishReason.CANCELLED:
        return code_of(_ended_by[-1]) if _ended_by else code_of(signal.SIGINT)
    return code


def cost_of(answer: Answer) -> str:
    """Say in one line what an answer cost and how it ended."""
    timings = answer.timings
    frames = f'{len(answer.frames)} frame{"" if len(answer.frames) == 1 else "s"}'
    return (
        f'{frames}, {timings.prompt_tokens} prompt tokens ({timings.vision_tokens} of them vision,'
        f' {timings.cached_prompt_tokens} cached); first token after'
        f' {timings.time_to_first_token_s:.2f} s; {timings.answer_tokens} tokens at'
        f' {timings.tokens_per_second:.1f} a second; {timings.total_s:.2f} s in all;'
        f' ended by {answer.finish_reason.name.lower()}{_choice_of(answer)}'
    )


def _note_slowness(answer: Answer, info: ModelInfo | None) -> None:
    """Say why a model of the catalogue was slower than its publisher measured it."""
    if not isinstance(info, ChipModelInfo) or is_path(info.model):
        return
    try:
        speed = load_catalogue().find(info.chip, info.model).speed
    except EdgeVlmError:  # Of a user's own catalogue, of another package: nothing is published.
        return
    machine = this_machine()
    is_card = machine.at('/dev/axcl_host').exists()
    run = Run(answer.timings.tokens_per_second, info.way, is_card)
    told = why_slower(speed, run, machine) if speed is not None else ''
    if told:
        _note(told)


def _choice_of(answer: Answer) -> str:
    if not answer.choice:
        return ''
    probability = answer.choice_probability
    share = 'not known' if probability is None else f'{probability:.3f}'
    return f'; choice {answer.choice!r}, probability {share}'


def _note(line: str) -> None:
    sys.stderr.write(f'{harmless(line)}\n')
    sys.stderr.flush()
