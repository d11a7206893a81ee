"""Scripts: what the scripted engine answers, how long it takes, how it fails.

A script is a YAML file (or a mapping of the same form); every key may be left out:

    answers:                  # the first whose `question` (a pattern) is found in the question
      - question: 'colou?r'
        answer: 'It is red.'
      - answer: 'You asked: {question}'   # also {images}: how many the KV cache holds,
                                          # {means}: the mean pixel value of each
    latency:                  # seconds; all 0 when left out
      load_s: 0
      load_parts: 1           # equal parts of the time above; each of several is reported
      encode_tile_s: 0        # each tile of a frame
      prefill_call_s: 0       # each call of prefill, plus
      prefill_token_s: 0      # each token of it
      prefill_history_s: {128: 0.12, 256: 0.2}  # instead: a call, by tokens cached after it
      layers: 1               # equal parts of a prefill's time, before each of which it can be
                              # given up
      decode_s: 0
      decode_history_s: {}    # instead: a step, by tokens cached after it
      head_s: 0               # next_token
    limits:                   # fields of EngineLimits
      context_tokens: 4096
      prefill_chunk: 256
      extension_chunk: 0      # of prefills after cached tokens, where it is another (not a field
                              # of EngineLimits); 1 = through the decode graph, token by token,
                              # each taking what a decode step takes
      longest_prompt: 4095
      max_images: 0
      tiles_per_frame: 0
      frames_per_question: 0
      can_extend_prefix: true
      samples_on_chip: false
      has_logits: true
      kv_slots: 2
      can_truncate: true      # false = the cache cannot be cut: it goes on, is dropped, or goes
                              # back to a snapshot, as with linear attention
      snapshots: 0            # that are kept then, in each slot
    faults:
      - at: decode            # load, encode, prefill, decode or next_token
        kind: error           # error, hang, exit (the process ends), segfault, or at next_token
                              # nan: the scores are, and a chip that chooses says token 0
        question: 'crash'     # only while this is found in the question; not for load and encode
        token: 2              # only at this answer token, from 0; for decode and next_token
        after: 0              # calls let through first, of those that the lines above select
        times: 0              # how often; 0 = always
        seconds: 3600         # of a hang, which then ends as an error
        message: ''
    tokenizer: ../some/folder # of config.json and the tokenizer; else beside the script,
                              # else the shipped byte-level one
    turn_token: '<|im_start|>'
    stop_token: '<|im_end|>'
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from edge_vlm_ros.core import ModelFileError
from edge_vlm_ros.core.bounded_yaml import read_yaml_file

_T = TypeVar('_T')
STAGES = ('load', 'encode', 'prefill', 'decode', 'next_token')
KINDS = ('error', 'hang', 'exit', 'segfault', 'nan')


@dataclass(frozen=True, slots=True)
class ScriptedAnswer:
    """One rule: what is answered when a pattern is found in the question."""

    answer: str
    question: str = ''

    def __post_init__(self) -> None:
        re.compile(self.question)

    def fits(self, question: str) -> bool:
        """Return whether this rule answers the question."""
        return re.search(self.question, question, re.IGNORECASE) is not None


@dataclass(frozen=True, slots=True)
class Latency:
    """How long each stage takes, in seconds; the module's text explains the fields."""

    load_s: float = 0.0
    load_parts: int = 1
    encode_tile_s: float = 0.0
    prefill_call_s: float = 0.0
    prefill_token_s: float = 0.0
    prefill_history_s: Mapping[int, float] = field(default_factory=dict)
    layers: int = 1
    decode_s: float = 0.0
    decode_history_s: Mapping[int, float] = field(default_factory=dict)
    head_s: float = 0.0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.load_parts < 1:
            raise ValueError(
                f'layers and load_parts are 1 or more, not {self.layers} and {self.load_parts}'
            )

    def prefill(self, tokens: int, history: int) -> float:
        """Time of one prefill of `tokens` after `history` cached ones."""
        if self.prefill_history_s:
            return _from_table(self.prefill_history_s, history + tokens)
        return self.prefill_call_s + self.prefill_token_s * tokens

    def decode(self, history: int) -> float:
        """Time of one decode step after `history` cached tokens."""
        if self.decode_history_s:
            return _from_table(self.decode_history_s, history + 1)
        return self.decode_s


def _from_table(table: Mapping[int, float], tokens: int) -> float:
    """Take the row of the smallest stage that holds `tokens`; the largest when none does."""
    stages = sorted(table)
    return table[stages[min(bisect_left(stages, tokens), len(stages) - 1)]]


@dataclass(frozen=True, slots=True)
class ScriptedLimits:
    """The part of `EngineLimits` that no file says; 0 for longest_prompt = all but one token."""

    context_tokens: int = 4096
    prefill_chunk: int = 256
    extension_chunk: int = 0
    longest_prompt: int = 0
    max_images: int = 0
    tiles_per_frame: int = 0
    frames_per_question: int = 0
    can_extend_prefix: bool = True
    samples_on_chip: bool = False
    has_logits: bool = True
    kv_slots: int = 2
    can_truncate: bool = True
    snapshots: int = 0

    def __post_init__(self) -> None:
        if self.kv_slots < 1:
            raise ValueError(f'kv_slots is 1 or more, not {self.kv_slots}')
        if self.snapshots < 0 or (self.can_truncate and self.snapshots):
            raise ValueError(
                f'snapshots is 0 or more, and of a cache that cannot be cut, not {self.snapshots}'
            )
        if not self.can_extend_prefix and self.prefill_chunk:
            raise ValueError('without can_extend_prefix, prefill_chunk must be 0: all at once')
        if not self.samples_on_chip and not self.has_logits:
            raise ValueError('one of samples_on_chip and has_logits must be true')


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to fail; the module's text explains the fields."""

    at: str
    kind: str = 'error'
    question: str = ''
    token: int | None = None
    after: int = 0
    times: int = 0
    seconds: float = 3600.0
    message: str = ''

    def __post_init__(self) -> None:
        if self.at not in STAGES or self.kind not in KINDS:
            raise ValueError(
                f'fault {self.kind!r} at {self.at!r}: kinds are {", ".join(KINDS)}, '
                f'stages are {", ".join(STAGES)}'
            )
        if self.kind == 'nan' and self.at != 'next_token':
            raise ValueError(f'scores are of next_token: there is no nan at {self.at}')
        if self.question and self.at in {'load', 'encode'}:
            raise ValueError(f'a fault at {self.at} knows no question')
        if self.token is not None and self.at not in {'decode', 'next_token'}:
            raise ValueError(f'a fault at {self.at} knows no answer token')
        re.compile(self.question)


@dataclass(frozen=True, slots=True)
class Script:
    """All that the scripted engine does."""

    answers: tuple[ScriptedAnswer, ...] = (ScriptedAnswer('{question}'),)
    latency: Latency = Latency()
    limits: ScriptedLimits = ScriptedLimits()
    faults: tuple[Fault, ...] = ()
    turn_token: str = '<|im_start|>'  # noqa: S105 (a template token)
    stop_token: str = '<|im_end|>'  # noqa: S105

    def answer(self, question: str) -> str:
        """Give the first fitting rule's answer, placeholders not yet filled; '' without one."""
        return next((rule.answer for rule in self.answers if rule.fits(question)), '')

    @classmethod
    def load(cls, path: Path) -> Script:
        """Read a script.

        Raises:
            ModelFileError: It is no script; says what is wrong where.
        """
        content: Any = read_yaml_file(path) or {}
        try:
            return cls.from_mapping(content)
        except ModelFileError as error:
            raise ModelFileError(f'{path}: {error.message}') from error

    @classmethod
    def from_mapping(cls, content: Mapping[str, Any]) -> Script:
        """Make a script of what its YAML file would hold.

        Raises:
            ModelFileError: A key is unknown or a value of the wrong kind.
        """
        try:
            rest = {key: value for key, value in content.items() if key != 'tokenizer'}
            parts: dict[str, Any] = {}
            if 'answers' in rest:
                parts['answers'] = tuple(_made(ScriptedAnswer, row) for row in rest.pop('answers'))
            if 'faults' in rest:
                parts['faults'] = tuple(_made(Fault, row) for row in rest.pop('faults'))
            if 'latency' in rest:
                parts['latency'] = _made(Latency, rest.pop('latency'))
            if 'limits' in rest:
                parts['limits'] = _made(ScriptedLimits, rest.pop('limits'))
            return _made(cls, {**parts, **rest})
        except (AttributeError, TypeError, ValueError, re.error) as error:
            raise ModelFileError(f'no script: {error}') from error


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    known = [item.name for item in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise ValueError(f'unknown key {key!r}; known are {", ".join(known)}')
    return kind(**values)
