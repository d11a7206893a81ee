"""The scripted engine: keeps the engine contract to the letter, and computes nothing.

What it answers is a function of the token ids in its KV cache alone, so prefill ahead and prefill
at once give the same tokens here too. It refuses what a chip refuses: a prompt that is too long, a
chunk that is too large, a gap in the positions, features that do not belong to the prompt.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Container, Mapping

import numpy as np

from edge_vlm_ros.core import (
    CancelledError,
    EdgeVlmError,
    EngineLimits,
    ModelFileError,
    ModelFiles,
    Options,
    PromptPart,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
    read_options,
    text_part,
)
from edge_vlm_ros.engines.base import ChosenToken, Logits, NextToken, OnLoaded, StopCheck
from edge_vlm_ros.engines.checks import check_piece, even_pieces, rows_of
from edge_vlm_ros.engines.guarded import GuardedEngine
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


class ScriptedEngine(GuardedEngine):
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
        kept = None if script.limits.can_truncate else script.limits.snapshots
        self._caches = [ScriptedKvCache(kept) for _ in range(script.limits.kv_slots)]
        super().__init__(_limits(files, script, self._tokenizer.vocab_size), *self._caches)

    @property
    def _cache(self) -> ScriptedKvCache:
        return self._caches[self._slot]

    @property
    def _position_rows(self) -> int:
        return 3  # M-RoPE's are taken, but not followed

    def _encode(self, inputs: VisionInputs) -> Spliced:
        """Make features whose every value is the mean of the pixels."""
        self._wait(self._script.latency.encode_tile_s * len(inputs.pixels))
        self._faults.meet('encode')
        mean = np.float32(inputs.pixels.mean())
        return Spliced(np.full((inputs.tokens, self.limits.hidden_size), mean, np.float32))

    def _usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None
    ) -> int:
        """Start again where the script's times make that cheaper, as static builds do."""
        lacking = {span.image for span in prompt.spans if span.start < shared}
        lacking -= {image for image in lacking if at_hand is None or image in at_hand}
        again_s = self._script.latency.encode_tile_s * len(lacking)
        total = len(prompt)
        goes_on_s = self._seconds(total - shared, shared)
        return 0 if self._seconds(total, 0) + again_s < goes_on_s else shared

    def _seconds(self, tokens: int, held: int) -> float:
        """Give the time of the pieces that append tokens after held ones."""
        total = 0.0
        for piece in self._plan(tokens, held):
            total += self._piece_s(piece, held)
            held += piece
        return total

    def _piece_s(self, tokens: int, held: int) -> float:
        latency = self._script.latency
        is_step = held and tokens == self._script.limits.extension_chunk == 1
        return latency.decode(held) if is_step else latency.prefill(tokens, held)

    def _plan(self, tokens: int, held: int) -> tuple[int, ...]:
        """Cut tokens into chunks; after cached ones the size may be another."""
        chunk, later = self.limits.prefill_chunk, self._script.limits.extension_chunk
        if not later:
            return even_pieces(tokens, chunk)
        first = 0 if held else min(tokens, chunk or tokens)
        rest = even_pieces(tokens - first, later)
        return (first, *rest) if first else rest

    def _check_piece(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> None:
        """Refuse a chunk that is too large, a gap in the positions, features of another prompt."""
        limits = self.limits
        most = limits.prefill_chunk or limits.longest_prompt
        if self._cache.length:
            most = self._script.limits.extension_chunk or most
        check_piece(len(part), most)
        self._check_order(part)
        super()._check_piece(part, features)

    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        held, tokens = self._cache.length, self._cache.tokens
        self._run_layers(self._piece_s(len(part), held), should_stop)
        self._faults.meet('prefill', self._question([*tokens, *part.tokens.tolist()]))
        self._cache.write(_cached_tokens(part, features))

    def _step(self, token: int, position: int) -> None:
        self._check_order(text_part((token,), position))
        self._wait(self._script.latency.decode(self._cache.length))
        self._faults.meet('decode', self._question(self._cache.tokens), self._answer_tokens())
        self._cache.write([CachedToken(token, position + 1)])

    def _head(self, sampling: SamplingOptions) -> NextToken:
        """Give the script's next token."""
        del sampling
        scores = self._scores().values
        if self.limits.samples_on_chip:
            # What a chip's arg max makes of nonsense: NaN is larger than nothing, so the first.
            return ChosenToken(0 if np.isnan(scores).any() else int(scores.argmax()))
        return Logits(scores)

    def _scores(self) -> Logits:
        self._wait(self._script.latency.head_s)
        place = self._answer_tokens()
        question = self._question(self._cache.tokens)
        values = np.zeros(self.limits.vocab_size, np.float32)
        if self._faults.meet('next_token', question, place):
            values[:] = np.nan
        else:
            values[self._scripted_token(place)] = _SURE
        return Logits(values)

    def _close(self) -> None:
        """Free nothing: there is no chip."""

    def _check_order(self, part: PromptPart) -> None:
        """Refuse positions that do not follow those of the cache; M-RoPE's are not followed."""
        if part.positions.ndim > 1:
            return
        start = int(part.positions[0])
        expected = self._cache.next_position
        if expected not in {None, start}:
            raise EdgeVlmError(f'the prompt goes on at position {start}, expected {expected}')
        is_run = bool((np.diff(part.positions) == 1).all())
        if not is_run or part.next_position != start + len(part):
            raise EdgeVlmError('the positions of the prompt do not count up one by one')

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
        """Count the tokens after the line that opens the answer."""
        tokens = self._cache.tokens
        if self._turn_token not in tokens:
            return 0
        opening = len(tokens) - tokens[::-1].index(self._turn_token)
        for place in range(opening, len(tokens)):
            if '\n' in self._tokenizer.decode(tokens[place : place + 1]):
                return len(tokens) - place - 1
        return 0

    def _scripted_token(self, place: int) -> int:
        question = self._question(self._cache.tokens)
        means = self._cache.image_means
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
        mean = float(rows_of(span, features)[0, 0])
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
        frames_per_question=wanted.frames_per_question,
        kv_slots=wanted.kv_slots,
        can_truncate=wanted.can_truncate,
        snapshots=wanted.snapshots,
    )
