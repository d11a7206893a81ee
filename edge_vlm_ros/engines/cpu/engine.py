"""The CPU engine: any model of the split ONNX layout, on ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    DeviceError,
    EdgeVlmError,
    EngineLimits,
    ModelFileError,
    ModelFiles,
    NotReadyError,
    Options,
    Positions,
    PromptPart,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
    count,
    read_options,
)
from edge_vlm_ros.engines.base import Logits, OnLoaded, StopCheck, never
from edge_vlm_ros.engines.checks import check_fits, check_spans, check_tokens, even_pieces
from edge_vlm_ros.engines.cpu.graphs import (
    DeclaredSizes,
    Decoder,
    TokenEmbedder,
    VisionEncoder,
    misfit,
)
from edge_vlm_ros.engines.cpu.kv_cache import CpuKvCache
from edge_vlm_ros.engines.cpu.runtime import Graph

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CpuOptions(Options):
    """How the CPU is used.

    Attributes:
        threads: Of one operator; 0 = one for each core this process may use.
        prefill_chunk: Tokens of one prefill step, between which a cancel is heard.
        context_tokens: Bounds the KV cache's memory; 0 = as the model was made.
    """

    threads: int = count(0)
    prefill_chunk: int = count(256, low=1)
    context_tokens: int = count(0)


OPTIONS = CpuOptions


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> CpuEngine:
    """Load a model; see `engines.open_engine`."""
    del on_loaded  # a second or two
    if device_ids not in {(), (0,)}:
        raise DeviceError(f'chip cpu has the one device 0, not {list(device_ids)}')
    return CpuEngine(files, read_options(CpuOptions, options, 'chip cpu'))


class CpuEngine:
    """One model on the CPU. One thread calls all of it.

    Raises:
        ModelFileError: A file is missing, damaged or does not fit the others.
    """

    def __init__(self, files: ModelFiles, options: CpuOptions = CpuOptions()) -> None:
        threads = options.threads or usable_cores()
        config = DeclaredSizes.of(files.config)
        try:
            vision_graph = Graph(_weights(files, 'vision_encoder'), threads)
            self._vision = VisionEncoder(vision_graph, config)
            self._embedder = TokenEmbedder(Graph(_weights(files, 'embed_tokens'), 1))
            decoder_graph = Graph(_weights(files, 'decoder_model_merged'), threads)
            self._decoder = Decoder(decoder_graph, config)
        except DeviceError as error:  # a graph that loads but cannot run is the file's fault
            raise ModelFileError(f'{files.folder}: {error.message}') from error
        hidden = self._decoder.hidden_size
        if self._vision.hidden_size != hidden:
            raise misfit(
                vision_graph, 'image_features', f'width {hidden}', f'{self._vision.hidden_size}'
            )
        if self._embedder.hidden_size != hidden:
            raise ModelFileError(
                f'{_weights(files, "embed_tokens")}: inputs_embeds: '
                f'expected width {hidden}, found {self._embedder.hidden_size}'
            )
        context = min(config.context_tokens, options.context_tokens or config.context_tokens)
        self._limits = EngineLimits(
            context_tokens=context,
            longest_prompt=context - 1,
            prefill_chunk=min(options.prefill_chunk, context),
            max_images=0,
            can_extend_prefix=True,
            samples_on_chip=False,
            has_logits=True,
            vocab_size=self._decoder.vocab_size,
            hidden_size=hidden,
            hidden_dtype=self._decoder.dtype.name,
            tile_px=self._vision.tile_px,
        )
        self._kv = CpuKvCache(self._decoder.kv)
        self._logits = Logits(np.zeros(0, np.float32))
        self._scored_length = 0
        self._is_open = True
        _log.info('loaded %s: %d threads, %s', files.name, threads, self._limits)

    @property
    def limits(self) -> EngineLimits:
        """Bounds and abilities, read from the model's files."""
        return self._limits

    @property
    def kv(self) -> CpuKvCache:
        """The KV cache."""
        return self._kv

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Run vision tower and projector on one frame of (tiles, 3, px, px)."""
        self._check_open()
        expected = (3, self._vision.tile_px, self._vision.tile_px)
        if inputs.pixels.ndim != 4 or inputs.pixels.shape[1:] != expected:
            raise EdgeVlmError(
                f'pixels have shape {inputs.pixels.shape}, expected (tiles, *{expected})'
            )
        rows = self._vision.run(inputs.pixels)
        if len(rows) != inputs.tokens:
            raise EdgeVlmError(
                f'the vision tower gave {len(rows)} rows, the prompt has room for {inputs.tokens}'
            )
        return Spliced(rows)

    def keep(self, shared: int, prompt: PromptPart) -> int:
        """Keep all: whatever follows, it costs less behind a longer prefix."""
        del prompt
        return shared

    def plan_prefill(self, tokens: int) -> tuple[int, ...]:
        """Cut the next `tokens` tokens into chunks of one size."""
        return even_pieces(tokens, self._limits.prefill_chunk)

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Append a prompt part to the KV cache; on an error the cache is as before."""
        del should_stop  # one run, nothing to give up in between
        self._check_open()
        if not len(part):
            return
        check_fits(len(part), self._kv.length, self._limits)
        check_tokens(part, self._limits)
        check_spans(part, features, self._limits)
        if part.positions.ndim > 1 and not self._decoder.takes_mrope:
            raise EdgeVlmError('the prompt has three rows of positions, this model takes one')
        embeds = self._splice(part, features) if part.spans else self._embed(part)
        self._append(embeds, part.positions)

    def next_token(self, sampling: SamplingOptions) -> Logits:
        """Give the scores that the last appended token's run left; `sampling` is the caller's."""
        del sampling
        self._check_open()
        if not self._scored_length or self._scored_length != self._kv.length:
            raise EdgeVlmError('no token was appended since the KV cache was cut')
        return self._logits

    def decode(self, token: int, position: int) -> None:
        """Append one answer token to the KV cache; on an error the cache is as before."""
        positions = np.full(1, position, np.int64)
        self.prefill(PromptPart(np.full(1, token, np.int64), positions, position + 1), {})

    def close(self) -> None:
        """Free the model's memory; safe to call twice."""
        if not self._is_open:
            return
        self._is_open = False
        self._kv.clear()
        del self._vision, self._embedder, self._decoder

    def _check_open(self) -> None:
        if not self._is_open:
            raise NotReadyError('the engine is closed')

    def _append(self, embeds: NDArray[Any], positions: Positions) -> None:
        past_tokens = self._kv.length
        logits, present = self._decoder.run(embeds, positions, self._kv.past(), past_tokens)
        self._kv.replace(present, past_tokens + positions.shape[-1])
        self._logits = Logits(logits)
        self._scored_length = self._kv.length

    def _embed(self, part: PromptPart) -> NDArray[Any]:
        embeds = self._embedder.run(part.tokens)
        return embeds.astype(self._decoder.dtype, copy=False)

    def _splice(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> NDArray[Any]:
        """Look up the words and put the features over the placeholders."""
        embeds: NDArray[Any] = self._embed(part).copy()
        for span in part.spans:
            spliced = features[span.image]
            assert isinstance(spliced, Spliced)
            rows = spliced.rows[span.first_row : span.first_row + len(span)]
            embeds[0, span.start : span.stop] = rows
        return embeds


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _weights(files: ModelFiles, part: str) -> Path:
    if part not in files.weights:
        raise ModelFileError(f'{files.folder}: no {part} among the model files')
    return files.weights[part]
