"""The CPU engine: any model of the split ONNX layout, on ONNX Runtime."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    DeviceError,
    EngineLimits,
    ModelFileError,
    ModelFiles,
    Options,
    PromptPart,
    SamplingOptions,
    SetupError,
    Spliced,
    VisionFeatures,
    VisionInputs,
    count,
    read_options,
)
from edge_vlm_ros.engines.base import Logits, OnLoaded, StopCheck
from edge_vlm_ros.engines.checks import rows_of
from edge_vlm_ros.engines.cpu.expect import misfit
from edge_vlm_ros.engines.cpu.graphs import (
    DeclaredSizes,
    Decoder,
    TokenEmbedder,
)
from edge_vlm_ros.engines.cpu.kv_cache import CpuKvCache
from edge_vlm_ros.engines.cpu.pace import choose_threads
from edge_vlm_ros.engines.cpu.runtime import Graph
from edge_vlm_ros.engines.cpu.towers import open_tower
from edge_vlm_ros.engines.guarded import GuardedEngine

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CpuOptions(Options):
    """How the CPU is used.

    Attributes:
        threads: Of one operator; 0 = one for each core this process may use, or for every other
            one of many where that is measured to be as good.
        prefill_chunk: Tokens of one prefill step, between which a cancel is heard.
        context_tokens: Bounds the KV cache's memory; 0 = as the model was made.
        kv_slots: Prompts that the KV cache may hold side by side; each takes memory once it is
            used.
    """

    threads: int = count(0)
    prefill_chunk: int = count(256, low=1)
    context_tokens: int = count(0)
    kv_slots: int = count(2, low=1)


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
        raise SetupError(f'chip cpu has the one device 0, not {list(device_ids)}')
    return CpuEngine(files, read_options(CpuOptions, options, 'chip cpu'))


class CpuEngine(GuardedEngine):
    """One model on the CPU. One thread calls all of it.

    Raises:
        ModelFileError: A file is missing, damaged or does not fit the others.
    """

    def __init__(self, files: ModelFiles, options: CpuOptions = CpuOptions()) -> None:
        config = DeclaredSizes.of(files.config)
        try:
            threads = options.threads or choose_threads(usable_cores(), _tile_s(files, config))
            vision_graph = Graph(_weights(files, 'vision_encoder'), threads)
            self._vision = open_tower(vision_graph, files.config, config)
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
        if self._vision.wants_mrope and not self._decoder.takes_mrope:
            raise misfit(
                decoder_graph, 'position_ids', 'three rows (time, height, width)', 'one or none'
            )
        token_s = self._decoder.token_s(min(self._vision.timed_rows + 1, options.prefill_chunk))
        pace = self._vision.pace(token_s)
        context = min(config.context_tokens, options.context_tokens or config.context_tokens)
        limits = EngineLimits(
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
            tiles_per_frame=pace.tiles_per_frame,
            patches_per_frame=pace.patches_per_frame,
            frames_per_question=pace.frames_per_question,
            kv_slots=options.kv_slots,
        )
        self._caches = [CpuKvCache(self._decoder.kv) for _ in range(options.kv_slots)]
        self._logits = Logits(np.zeros(0, np.float32))
        super().__init__(limits, *self._caches)
        _log.info('loaded %s: %d threads, %s', files.name, threads, limits)
        _log.info('%s here: %s', files.name, pace)

    @property
    def _position_rows(self) -> int:
        return 3 if self._decoder.takes_mrope else 1

    def _encode(self, inputs: VisionInputs) -> Spliced:
        """Run vision tower and projector on one image."""
        return Spliced(self._vision.encode(inputs))

    def _append(
        self, part: PromptPart, features: Mapping[int, VisionFeatures], should_stop: StopCheck
    ) -> None:
        """Append a part in one run, which leaves the scores of its last token."""
        del should_stop  # one run, nothing to give up in between
        embeds = self._splice(part, features) if part.spans else self._embed(part)
        cache = self._caches[self._slot]
        held = cache.length
        logits, present = self._decoder.run(embeds, part.positions, cache.past(), held)
        cache.store(present, held + len(part))
        self._logits = Logits(logits)

    def _head(self, sampling: SamplingOptions) -> Logits:
        """Give the scores that the last run left; `sampling` is the caller's."""
        del sampling
        return self._logits

    def _close(self) -> None:
        for cache in self._caches:
            cache.clear()
        del self._vision, self._embedder, self._decoder

    def _embed(self, part: PromptPart) -> NDArray[Any]:
        embeds = self._embedder.run(part.tokens)
        return embeds.astype(self._decoder.dtype, copy=False)

    def _splice(self, part: PromptPart, features: Mapping[int, VisionFeatures]) -> NDArray[Any]:
        """Look up the words and put the features over the placeholders."""
        embeds: NDArray[Any] = self._embed(part).copy()
        for span in part.spans:
            embeds[0, span.start : span.stop] = rows_of(span, features)
        return embeds


def usable_cores() -> int:
    """Count the cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _tile_s(files: ModelFiles, config: DeclaredSizes) -> Callable[[int], float]:
    """Return what times the tower with a number of threads; the graph is let go after that."""
    path = _weights(files, 'vision_encoder')
    return lambda threads: open_tower(Graph(path, threads), files.config, config).timed_s


def _weights(files: ModelFiles, part: str) -> Path:
    if part not in files.weights:
        raise ModelFileError(f'{files.folder}: no {part} among the model files')
    return files.weights[part]
