"""What a server's refusal means: its status and body to an error code, and who can act.

Sources, read in July 2026: vLLM, vllm/entrypoints/openai (ErrorResponse); SGLang,
sglang/srt/entrypoints/openai (flat errors); llama.cpp, tools/server (format_error_response);
transformers, cli/serve.py (FastAPI's `detail`); Ollama, openai/openai.go.
"""

from __future__ import annotations

import email.utils
import json
import math
import re
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from edge_vlm_ros.core import BusyError, EdgeVlmError, ErrorCode, PromptTooLongError

MAX_QUOTE = 200
"""Characters of a server's own words that are shown."""

LONGEST_RETRY_S = 60.0
"""A server that asks to be left alone for longer is asked again all the same."""

_TOO_LONG = re.compile(
    r'exceed_context_size|maximum context length|context (?:size|length|window)'
    r'|longer than the model|max_model_len|prompt is too long|too many tokens',
    re.IGNORECASE,
)
_BAD_IMAGE = re.compile(
    r'cannot identify image|(?:failed|unable|cannot) to (?:load|decode|process|read)[\w ]* image'
    r'|invalid image|image[\w ]*(?:is )?(?:invalid|corrupt|truncated)|failed to decode image',
    re.IGNORECASE,
)
_TOO_MANY = re.compile(r'at most \d+ (?:image|multi)|limit.mm.per.prompt', re.IGNORECASE)
_NO_IMAGES = re.compile(
    r'image input is not supported|does not support image|not a multimodal|no mmproj'
    r'|not support[\w ]* (?:multi-?modal|vision)',
    re.IGNORECASE,
)
_FIELDS = ('top_k', 'seed', 'top_p', 'repetition_penalty', 'repeat_penalty', 'logprobs',
           'grammar', 'structured_outputs', 'regex', 'temperature')  # fmt: skip
_UNKNOWN_FIELD = re.compile(r'unexpected|unknown|not permitted|extra|unsupported|not supported')


class WhoCanAct(Enum):
    """Who can do something about a fault."""

    CALLER = 'caller'
    """Every other server would say the same."""

    DEPLOYER = 'deployer'
    """This server will say so until its settings, or ours, are changed."""

    NOBODY = 'nobody'
    """It is gone, silent or broken; another may do."""

    TIME = 'time'
    """It has too much to do; later, or another, may do."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a server did not answer.

    Attributes:
        who: Who can act.
        code: For the answer.
        message: What happened, for people; without the server's name.
        retry_after_s: It asked to be left alone for so long, seconds; 0 = it did not say.
    """

    who: WhoCanAct
    code: ErrorCode
    message: str
    retry_after_s: float = 0.0

    @property
    def may_be_asked_elsewhere(self) -> bool:
        """Whether another server may do better."""
        return self.who is not WhoCanAct.CALLER


class FaultError(Exception):
    """A server did not answer, or not to its end."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def unreachable(message: str) -> Fault:
    """Return the fault of a server that is gone, silent or broken."""
    return Fault(WhoCanAct.NOBODY, ErrorCode.SERVER_UNREACHABLE, message)


def fault_of(status: int, body: bytes, retry_after: str = '') -> Fault:
    """Say what a response other than an answer means.

    Args:
        status: Of HTTP.
        body: Of it, as far as it was read.
        retry_after: The header of that name.
    """
    kind, words = _words(body)
    fault = _by_status(status, f'{kind} {words}')
    said = f'status {status}: {words}' if words else f'status {status}'
    if status == 413:
        said += ' (a gateway bounds the size of a request: client_max_body_size of nginx, or less '
        said += 'frames, or a smaller max_side)'
    return replace(fault, message=said, retry_after_s=read_retry_after(retry_after))


def fault_in_stream(event: Any) -> Fault | None:
    """Return the fault that an event of a stream tells of; None = it is none.

    Args:
        event: Parsed JSON.
    """
    if not isinstance(event, dict):
        return None
    error = event.get('error')
    is_flat = event.get('object') == 'error'
    if not error and not is_flat:
        return None
    about = error if isinstance(error, dict) else event
    code = about.get('code')
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return fault_of(status, json.dumps(event).encode())


def joined(faults: list[tuple[str, Fault]], waits: str = '') -> EdgeVlmError:
    """Return the error of a question that no server answered; names each with its reason.

    Args:
        faults: Server and fault, in the order they were tried.
        waits: What else to say.
    """
    assert faults
    whose = [fault.who for _, fault in faults]
    told = '; '.join(f'{server}: {fault.message}' for server, fault in faults) + waits
    if all(who is WhoCanAct.TIME for who in whose):
        return BusyError(f'every server is busy: {told}')
    if all(who is WhoCanAct.DEPLOYER for who in whose):
        return EdgeVlmError(f'refused by the server: {told}', ErrorCode.SERVER_REFUSED)
    return EdgeVlmError(f'no server answered: {told}', ErrorCode.SERVER_UNREACHABLE)


def read_retry_after(text: str) -> float:
    """Read the header Retry-After, seconds or a date; 0 = nothing that can be used."""
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_until(text)
    return min(max(0.0, seconds), LONGEST_RETRY_S) if math.isfinite(seconds) else 0.0


def _seconds_until(date: str) -> float:
    try:
        when = email.utils.parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
    return (when - datetime.now(timezone.utc)).total_seconds()


def _by_status(status: int, words: str) -> Fault:
    if status in {400, 413, 422} or (status == 500 and _BAD_IMAGE.search(words)):
        return Fault(WhoCanAct.CALLER, _code_of(words), '')
    if status in {401, 403, 404, 405} or 300 <= status < 400:
        return Fault(WhoCanAct.DEPLOYER, ErrorCode.SERVER_REFUSED, '')
    if status in {429, 503}:
        return Fault(WhoCanAct.TIME, ErrorCode.BUSY, '')
    if _NO_IMAGES.search(words):
        return Fault(WhoCanAct.DEPLOYER, ErrorCode.SERVER_REFUSED, '')
    return unreachable('')


def _code_of(words: str) -> ErrorCode:
    if _TOO_LONG.search(words):
        return PromptTooLongError.default_code
    if _TOO_MANY.search(words):
        return ErrorCode.TOO_MANY_FRAMES
    if _NO_IMAGES.search(words):
        return ErrorCode.UNSUPPORTED_OPTION
    if _BAD_IMAGE.search(words):
        return ErrorCode.BAD_IMAGE
    lowered = words.lower()
    if _UNKNOWN_FIELD.search(lowered) and any(name in lowered for name in _FIELDS):
        return ErrorCode.UNSUPPORTED_OPTION
    return ErrorCode.BAD_REQUEST


def _words(body: bytes) -> tuple[str, str]:
    """Return the type of an error, where it has one, and what the server says, shortened."""
    text = body.decode('utf-8', 'replace').strip()
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return '', quoted(_plain(text))
    if not isinstance(parsed, dict):
        return '', quoted(text)
    error = parsed.get('error')
    about = error if isinstance(error, dict) else parsed
    kind = about.get('type')
    found = about.get('message') or parsed.get('detail') or error or text
    said = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
    return (kind if isinstance(kind, str) else ''), quoted(said)


def quoted(text: str) -> str:
    """Return what a server says, on one line, of at most `MAX_QUOTE` characters."""
    line = ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())
    return line if len(line) <= MAX_QUOTE else line[: MAX_QUOTE - 1] + '…'


def _plain(text: str) -> str:
    """Return a page's title, or its text without tags."""
    if '<' not in text:
        return text
    title = re.search(r'<title>([^<]*)</title>', text, re.IGNORECASE)
    return f'a web page: {title[1]}' if title else re.sub(r'<[^>]*>', ' ', text)
