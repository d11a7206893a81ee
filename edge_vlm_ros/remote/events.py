"""What a server streams: bytes to events. A pure parser: no socket, no clock.

Server-sent events (WHATWG HTML, 9.2) with chunks of chat completions in them. A chunk is read with
care: `choices` may be empty, `content` null or missing, `usage` anywhere, `[DONE]` missing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from edge_vlm_ros.remote.errors import Fault, fault_in_stream, quoted, unreachable

MAX_LINE_BYTES = 1 << 20
"""Longest line that is read; a chunk with twenty scored tokens has some KiB."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server says it has worked.

    Attributes:
        prompt_tokens: All tokens before the answer; 0 = not said.
        answer_tokens: Of the answer; 0 = not said.
        cached_tokens: Of the prompt, those that it had in its KV cache.
    """

    prompt_tokens: int = 0
    answer_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TokenScore:
    """How likely a token was, among others, in one place of an answer.

    Attributes:
        text: Of the token.
        logprob: The natural logarithm of its probability.
    """

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event of a stream.

    Attributes:
        text: New text of the answer.
        is_thinking: It holds text that is no part of the answer: a model thinks aloud.
        finish_reason: The server's word; '' = it goes on.
        usage: None = not in this one.
        scores: Of the tokens that were likely where the first token of `text` stands.
        fault: The server broke off, and why.
        is_last: '[DONE]'.
    """

    text: str = ''
    is_thinking: bool = False
    finish_reason: str = ''
    usage: Usage | None = None
    scores: tuple[TokenScore, ...] = ()
    fault: Fault | None = field(default=None)
    is_last: bool = False


class EventReader:
    """Makes events of bytes, however they are cut."""

    def __init__(self) -> None:
        self._rest = b''
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that are whole with these bytes; what is none is a fault."""
        *lines, self._rest = (self._rest + data).split(b'\n')
        found = [self._take(line.rstrip(b'\r')) for line in lines]
        if len(self._rest) > MAX_LINE_BYTES:
            found.append(_fault(f'sent a line of more than {MAX_LINE_BYTES} bytes'))
        return [event for event in found if event is not None]

    def close(self) -> list[ServerEvent]:
        """The stream is over: return the event whose lines are whole, though nothing ends it."""
        event = self._end_event()
        return [] if event is None else [event]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._end_event()
        name, _, value = line.partition(b':')
        value = value[1:] if value.startswith(b' ') else value
        # A line that begins with a colon is a comment: life, no word. llama.cpp has had `error:`.
        if name in {b'data', b'error'}:
            self._data.append(value)
        return None

    def _end_event(self) -> ServerEvent | None:
        if not self._data:
            return None
        data, self._data = b'\n'.join(self._data), []
        return _read(data)


def _fault(message: str) -> ServerEvent:
    return ServerEvent(fault=unreachable(message))


def _read(data: bytes) -> ServerEvent:
    if data.strip() == b'[DONE]':
        return ServerEvent(is_last=True)
    try:
        chunk = json.loads(data.decode('utf-8'))
    except (ValueError, RecursionError):
        shown = quoted(data.decode('utf-8', 'replace'))
        return _fault(f'sent an event that is no JSON: {shown}')
    fault = fault_in_stream(chunk)
    if fault is not None:
        return ServerEvent(fault=fault)
    if not isinstance(chunk, dict):
        return _fault(f'sent an event that is no object: {quoted(str(chunk))}')
    choices = chunk.get('choices')
    choice = choices[0] if isinstance(choices, list) and choices else {}
    return _event(chunk, choice if isinstance(choice, dict) else {})


def _event(chunk: dict[str, Any], choice: dict[str, Any]) -> ServerEvent:
    delta = choice.get('delta') or choice.get('message') or {}
    delta = delta if isinstance(delta, dict) else {}
    reason = choice.get('finish_reason')
    usage = chunk.get('usage') or choice.get('usage')
    return ServerEvent(
        text=_text(delta.get('content')),
        is_thinking=bool(delta.get('reasoning_content') or delta.get('reasoning')),
        finish_reason=reason if isinstance(reason, str) else '',
        usage=_usage(usage) if isinstance(usage, dict) else None,
        scores=_scores(choice.get('logprobs')),
    )


def _text(content: Any) -> str:
    """Return the text of `content`: a text, null, or a list of parts."""
    if isinstance(content, str):
        return _without_surrogates(content)
    if isinstance(content, list):
        parts = [part.get('text') for part in content if isinstance(part, dict)]
        return ''.join(_text(part) for part in parts)
    return ''


def _without_surrogates(text: str) -> str:
    """Return a text that can be sent on: JSON may escape half a character."""
    return (
        text
        if text.isascii()
        else text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')
    )


def _usage(usage: dict[str, Any]) -> Usage:
    details = usage.get('prompt_tokens_details')
    cached = details.get('cached_tokens') if isinstance(details, dict) else 0
    return Usage(
        _count(usage.get('prompt_tokens')), _count(usage.get('completion_tokens')), _count(cached)
    )


def _count(value: Any) -> int:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return min(value, 2**31 - 1) if is_count else 0


def _scores(logprobs: Any) -> tuple[TokenScore, ...]:
    content = logprobs.get('content') if isinstance(logprobs, dict) else None
    first = content[0] if isinstance(content, list) and content else None
    top = first.get('top_logprobs') if isinstance(first, dict) else None
    return tuple(
        TokenScore(entry['token'], float(entry['logprob']))
        for entry in (top if isinstance(top, list) else ())
        if isinstance(entry, dict)
        and isinstance(entry.get('token'), str)
        and isinstance(entry.get('logprob'), int | float)
    )
