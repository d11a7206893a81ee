"""The scripted engine: keeps the engine contract to the letter, and computes nothing.

What it answers is a function of the token ids in its KV cache alone, so prefill ahead and prefill
at once give the same tokens here too. It refuses what a chip refuses: a prompt that is too long, a
chunk that is too large, a gap in the positions, features that do not belong to the prompt.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping

import numpy as np

from edge_vlm_ros.core import (
    CancelledError,
    EdgeVlmError,
    EngineLimits,
    ModelFileError,
    ModelFiles,
    NotReadyError,
    Options,
    PromptPart,
    PromptTooLongError,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
    read_options,
)
from edge_vlm_ros.engines.base import (
    ChosenToken,
    Logits,
    NextToken,
    OnLoaded,
    StopCheck,
    never,
)
from edge_vlm_ros.engines.checks import check_fits, check_spans, check_tokens, even_pieces
from edge_vlm_ros.engines.scripted.faults import FaultMaker
from edge_vlm_ros.engines.scripted.kv_cache import CachedToken, ScriptedKvCache
from edge_vlm_ros.engines.scripted.script import Script
from edge_vlm_ros.text import Tokenizer

# Far above 0, so that the scripted token is drawn even at the highest temperature.
_SURE = 1000.0
# Lines that stand before the frames of a clip.
_FRAME_LINES = re.compile(r'\A(?:\s|Frame-?\d+:)*')


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> ScriptedEngine:
    """Load a script; see `engines.open_engine`. Any device ids will do."""
    del device_ids
    read_options(Options, options, 'chip scripted')
    if 'script' not in files.weights:
        raise ModelFileError(f'{files.folder}: no script among the model files')
    return ScriptedEngine(files, Script.load(files.weights['script']), on_loaded=on_loaded)


class ScriptedEngine:
    """One script. One thread calls all of it.

    Args:
        files: Says where tokenizer and config.json lie.
        script: What is answered, how slowly and how badly.
        sleep: Waits that many seconds; tests pass one that does not.
        on_loaded: Told of each part that is loaded, where there are several.

    Raises:
        ModelFileError: The tokenizer or config.json cannot be used.
        DeviceError: The script has a fault at 'load'.
    """

    def __init__(
        self,
        files: ModelFiles,
        script: Script,
        sleep: Callable[[float], None] = time.sleep,
        on_loaded: OnLoaded | None = None,
    ) -> None:
        self._script = script
        self._sleep = sleep
        self._faults = FaultMaker(script.faults, sleep)
        parts = script.latency.load_parts
        for part in range(parts):
            self._wait(script.latency.load_s / parts)
            if on_loaded is not None and parts > 1:
                on_loaded(part + 1, parts)
        self._faults.meet('load')
        self._tokenizer = Tokenizer.load(files.tokenizer_folder)
        self._turn_token = self._tokenizer.token_id(script.turn_token)
        self._stop_token = self._tokenizer.token_id(script.stop_token)
        self._limits = _limits(files, script, self._tokenizer.vocab_size)
        self._kv = ScriptedKvCache()
        self._scored_length = 0
        self._is_open = True

    @property
    def limits(self) -> EngineLimits:
        """Bounds and abilities, from the script and config.json."""
        return self._limits

    @property
    def kv(self) -> ScriptedKvCache:
        """The KV cache."""
        return self._kv

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Make features whose every value is the mean of the pixels."""
        self._check_open()
        self._wait(self._script.latency.encode_tile_s * len(inputs.pixels))
        self._faults.meet('encode')
        mean = np.float32(inputs.pixels.mean())
        return Spliced(np.full((inputs.tokens, self._limits.hidden_size), mean, np.float32))

    def keep(self, shared: int, prompt: PromptPart) -> int:
        """Keep all: whatever follows, it costs less behind a longer prefix."""
        del prompt
        return shared

    def plan_prefill(self, tokens: int) -> tuple[int, ...]:
        """Cut the next `tokens` tokens into chunks; behind cached ones the size may be another."""
        chunk, later = self._limits.prefill_chunk, self._script.limits.extension_chunk
        if not later:
            return even_pieces(tokens, chunk)
        first = 0 if self._kv.length else min(tokens, chunk or tokens)
        rest = even_pieces(tokens - first, later)
        return (first, *rest) if first else rest

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Append a prompt part; on an error, or given up, the cache is as before."""
        self._check_open()
        if not len(part):
            return
        self._check_prefill(part)
        check_spans(part, features, self._limits)
        appended = _cached_tokens(part, features)
        self._run_layers(self._script.latency.prefill(len(part), self._kv.length), should_stop)
        self._faults.meet('prefill', self._question([*self._kv.tokens, *part.tokens.tolist()]))
        self._append(appended)

    def next_token(self, sampling: SamplingOptions) -> NextToken:
        """Give the script's next token."""
        del sampling
        self._check_open()
        if not self._scored_length or self._scored_length != self._kv.length:
            raise EdgeVlmError('no token was appended since the KV cache was cut')
        self._wait(self._script.latency.head_s)
        place = self._answer_tokens()
        self._faults.meet('next_token', self._question(self._kv.tokens), place)
        token = self._scripted_token(place)
        if self._limits.samples_on_chip:
            return ChosenToken(token)
        values = np.zeros(self._limits.vocab_size, np.float32)
        values[token] = _SURE
        return Logits(values)

    def decode(self, token: int, position: int) -> None:
        """Append one token; on an error the cache is as before."""
        self._check_open()
        positions = np.full(1, position, np.int64)
        part = PromptPart(np.full(1, token, np.int64), positions, position + 1)
        check_fits(1, self._kv.length, self._limits)
        check_tokens(part, self._limits)
        self._check_positions(part)
        self._wait(self._script.latency.decode(self._kv.length))
        self._faults.meet('decode', self._question(self._kv.tokens), self._answer_tokens())
        self._append([CachedToken(token, position + 1)])

    def close(self) -> None:
        """Forget everything; safe to call twice."""
        self._kv.truncate(0)
        self._is_open = False

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotReadyError('the engine is closed')

    def _check_prefill(self, part: PromptPart) -> None:
        limits = self._limits
        check_fits(len(part), self._kv.length, limits)
        most = limits.prefill_chunk or limits.longest_prompt
        if self._kv.length:
            most = self._script.limits.extension_chunk or most
        if len(part) > most:
            raise PromptTooLongError(
                f'{len(part)} tokens in one prefill, this engine takes {most} at once'
            )
        if self._kv.length and not limits.can_extend_prefix:
            raise EdgeVlmError(
                f'prefill behind {self._kv.length} cached tokens: this engine cannot extend'
            )
        check_tokens(part, limits)
        self._check_positions(part)

    def _check_positions(self, part: PromptPart) -> None:
        """Refuse positions that do not follow those of the cache; M-RoPE's are not followed."""
        if part.positions.ndim > 1:
            return
        start = int(part.positions[0])
        expected = 0 if not self._kv.length else self._kv.next_position
        if expected not in {None, start}:
            raise EdgeVlmError(f'the prompt goes on at position {start}, expected {expected}')
        is_run = bool((np.diff(part.positions) == 1).all())
        if not is_run or part.next_position != start + len(part):
            raise EdgeVlmError('the positions of the prompt do not count up one by one')

    def _append(self, appended: list[CachedToken]) -> None:
        self._kv.cached += appended
        self._scored_length = self._kv.length

    def _run_layers(self, seconds: float, should_stop: StopCheck) -> None:
        layers = self._script.latency.layers
        for layer in range(layers):
            if should_stop():
                raise CancelledError(f'prefill was given up before layer {layer} of {layers}')
            self._wait(seconds / layers)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self._sleep(seconds)

    def _question(self, tokens: list[int]) -> str:
        """Read the last question: what stands between the last two turn tokens, less the role."""
        turns = [i for i, token in enumerate(tokens) if token == self._turn_token]
        start, stop = turns[-2:] if len(turns) > 1 else (0, len(tokens))
        text = self._tokenizer.decode(tokens[start:stop])
        _, newline, rest = text.partition('\n')
        return _FRAME_LINES.sub('', rest if newline else text).strip()

    def _answer_tokens(self) -> int:
        """Count the tokens behind the line that opens the answer."""
        tokens = self._kv.tokens
        if self._turn_token not in tokens:
            return 0
        opening = len(tokens) - tokens[::-1].index(self._turn_token)
        for place in range(opening, len(tokens)):
            if '\n' in self._tokenizer.decode(tokens[place : place + 1]):
                return len(tokens) - place - 1
        return 0

    def _scripted_token(self, place: int) -> int:
        question = self._question(self._kv.tokens)
        means = self._kv.image_means
        text = self._script.answer(question)
        text = text.replace('{images}', str(len(means)))
        text = text.replace('{means}', ', '.join(f'{mean:.2f}' for mean in means))
        answer = self._tokenizer.encode(text.replace('{question}', question))
        return answer[place] if place < len(answer) else self._stop_token


def _cached_tokens(part: PromptPart, features: Mapping[int, VisionFeatures]) -> list[CachedToken]:
    """List what a part adds to the cache."""
    ends = [*part.positions[1:].tolist(), part.next_position]
    if part.positions.ndim > 1:
        ends = [*[None] * (len(part) - 1), part.next_position]
    cached = [CachedToken(int(token), end) for token, end in zip(part.tokens, ends, strict=True)]
    for span in part.spans:
        spliced = features[span.image]
        assert isinstance(spliced, Spliced)
        mean = float(spliced.rows[span.first_row, 0])
        for place in range(span.start, span.stop):
            word = cached[place]
            cached[place] = CachedToken(word.token, word.next_position, span.image, mean)
    return cached


def _limits(files: ModelFiles, script: Script, vocab_size: int) -> EngineLimits:
    """Join the script's limits with what config.json says of widths."""
    wanted = script.limits
    return EngineLimits(
        context_tokens=wanted.context_tokens,
        longest_prompt=wanted.longest_prompt or wanted.context_tokens - 1,
        prefill_chunk=wanted.prefill_chunk,
        max_images=wanted.max_images,
        can_extend_prefix=wanted.can_extend_prefix,
        samples_on_chip=wanted.samples_on_chip,
        has_logits=wanted.has_logits,
        vocab_size=vocab_size,
        hidden_size=files.config.language.count('hidden_size'),
        tile_px=files.config.vision.find_count('image_size') or 0,
        tiles_per_frame=wanted.tiles_per_frame,
    )
