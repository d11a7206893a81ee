"""What the verbs of `ros2 vlm` do that need a node."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.action import Ask as AskAction
from edge_vlm_ros.cli.ending import EndedBySignal, code_of, raise_on_signals
from edge_vlm_ros.cli.exits import ExitCode, exit_code_of
from edge_vlm_ros.core import EdgeVlmError
from edge_vlm_ros.harmless import harmless
from edge_vlm_ros.msg import AnswerChunk, WatchEvent, WatchSpec, WatchState
from edge_vlm_ros.nodes import qos
from edge_vlm_ros.nodes.web_fields import fields_of, fields_of_answer
from edge_vlm_ros.ros2vlm.client import Client, client_of
from edge_vlm_ros.srv import Cancel, Describe, ListWatches, Unwatch, Watch

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from edge_vlm_ros.msg import Answer as AnswerMsg

_URGENT = 1


def run(args: Namespace) -> int:
    """Run a verb.

    Returns:
        The exit code.
    """
    raise_on_signals()
    try:
        with client_of(args.node, args.wait) as client:
            return int(_VERBS[args.verb](client, args))
    except EdgeVlmError as error:
        _complain(error.message)
        return exit_code_of(error.code)
    except EndedBySignal as ended:
        return code_of(ended.number)


def _ask(client: Client, args: Namespace) -> int:
    goal = AskAction.Goal(
        question=args.question,
        request_id=args.id,
        session_id=args.session,
        cameras=args.camera,
        last_seconds=args.last,
        max_frames=args.frames,
        max_age_s=args.max_age,
        system_prompt=args.system,
        max_tokens=args.max_tokens,
        choices=args.choice,
        yes_no=args.yes_no,
        timeout_s=args.timeout,
        priority=_URGENT if args.urgent else 0,
    )
    words = _Words(show=not args.json)
    return _report(client.ask(goal, words.add, args.wait), words, args)


def _describe(client: Client, args: Namespace) -> int:
    request_id = client.node.get_name()
    request = Describe.Request(
        request_id=request_id,
        preset=args.preset,
        cameras=args.camera,
        last_seconds=args.last,
        max_frames=args.frames,
        timeout_s=args.timeout,
    )
    words = _Words(show=not args.json)

    def on_chunk(chunk: AnswerChunk) -> None:
        if chunk.request_id == request_id:
            words.add(chunk.delta)

    client.node.create_subscription(
        AnswerChunk, f'{client.vlm}/answer', on_chunk, qos.ANSWER_CHUNKS
    )
    name = f'{client.namespace}describe'
    response = client.call(Describe, name, request, args.wait)
    return _report(response.answer, words, args)


def _cancel(client: Client, args: Namespace) -> int:
    request = Cancel.Request(request_id=args.id)
    response = client.call(Cancel, f'{client.vlm}/cancel', request, args.wait)
    _say(json.dumps(fields_of(response)) if args.json else response.message)
    return ExitCode.DONE if response.cancelled or not args.id else ExitCode.BAD_INPUT


def _watch(client: Client, args: Namespace) -> int:
    if args.remove:
        return _unwatch(client, args)
    if args.list:
        response = client.call(
            ListWatches, f'{client.vlm}/list_watches', ListWatches.Request(), args.wait
        )
        for state in response.watches:
            _say(json.dumps(fields_of(state)) if args.json else _line_of(state))
        return ExitCode.DONE
    events: list[WatchEvent] = []
    client.node.create_subscription(
        WatchEvent, f'{client.vlm}/event', events.append, qos.ANSWER_CHUNKS
    )
    if args.question and not _set_watch(client, args):
        return ExitCode.BAD_INPUT
    while True:
        client.spin()
        while events:
            event = events.pop(0)
            if args.name not in {'', event.watch}:
                continue
            _say(json.dumps(fields_of(event)) if args.json else _line_of_event(event))
            if args.once and event.kind == WatchEvent.KIND_BEGIN:
                return ExitCode.DONE


def _set_watch(client: Client, args: Namespace) -> bool:
    spec = WatchSpec(
        name=args.name or 'ros2_vlm',
        question=args.question,
        choices=args.choice,
        when=args.when,
        cameras=args.camera,
        last_seconds=args.last,
        period_s=args.period,
    )
    request = Watch.Request(watch=spec)
    response = client.call(Watch, f'{client.vlm}/watch', request, args.wait)
    if not response.success:
        _complain(response.message)
    return bool(response.success)


def _unwatch(client: Client, args: Namespace) -> int:
    request = Unwatch.Request(name=args.name)
    response = client.call(Unwatch, f'{client.vlm}/unwatch', request, args.wait)
    _say(json.dumps(fields_of(response)) if args.json else response.message)
    return ExitCode.DONE if response.removed or not args.name else ExitCode.BAD_INPUT


_VERBS: dict[str, Callable[[Client, Namespace], int]] = {
    'ask': _ask,
    'describe': _describe,
    'cancel': _cancel,
    'watch': _watch,
}


class _Words:
    """The words of an answer, written as they come.

    Args:
        show: Else they are only kept.
    """

    def __init__(self, *, show: bool) -> None:
        self._show = show
        self.said = ''

    def add(self, delta: str) -> None:
        self.said += delta
        if self._show and delta:
            sys.stdout.write(harmless(delta))
            sys.stdout.flush()

    def end(self, text: str) -> None:
        """Write what did not come: the whole text anew, where it is not what was written."""
        if text.startswith(self.said):
            self.add(text[len(self.said) :])
        else:
            self.add('\n' + text)
        if self.said and not self.said.endswith('\n'):
            self.add('\n')


def _report(answer: AnswerMsg, words: _Words, args: Namespace) -> int:
    if args.json:
        _say(json.dumps(fields_of_answer(answer)))
    else:
        words.end(answer.text)
        if answer.message:
            _complain(answer.message)
    if args.stats:
        for line in _facts(answer):
            _complain(line)
    return exit_code_of(answer.error_code)


def _facts(answer: AnswerMsg) -> list[str]:
    stats = answer.stats
    frames = [
        f'{frame.camera or "image"}, {frame.width}x{frame.height}, {frame.age_s:.2f} s old'
        for frame in answer.frames
    ]
    return [
        *frames,
        (
            f'first token {stats.time_to_first_token_s:.2f} s, total {stats.total_s:.2f} s, '
            f'{stats.tokens_per_second:.1f} tokens/s, {answer.model} on {answer.chip}'
        ),
    ]


def _line_of(state: WatchState) -> str:
    doing = _constant(state, 'STATE_', state.state).lower()
    event = ', the event is on' if state.event_on else ''
    asked = f'{state.spec.name}: {doing}{event}; {state.spec.question}'
    return f'{asked} ({state.message})' if state.message else asked


def _line_of_event(event: WatchEvent) -> str:
    what = _constant(event, 'KIND_', event.kind).lower().replace('_', ' ')
    return f'{event.watch} {what}: {event.text}'


def _constant(message: Any, prefix: str, value: int) -> str:
    """Return the name of a message's constant without its prefix; of an unknown one the number."""
    names = (name for name in dir(type(message)) if name.startswith(prefix))
    found = (name for name in names if getattr(message, name) == value)
    return next(found, str(value)).removeprefix(prefix)


def _say(line: str) -> None:
    sys.stdout.write(f'{harmless(line)}\n')
    sys.stdout.flush()


def _complain(line: str) -> None:
    sys.stderr.write(f'ros2 vlm: {harmless(line).strip()}\n')
    sys.stderr.flush()
