"""An engine of this package that breaks when told to: in its library where that can be.

On the CPU that is ONNX Runtime's session, on Axera's chip what the stub of its library computes:
so the engine meets the fault where a real one would come from.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from edge_vlm_ros.core import (
    EngineLimits,
    ModelFiles,
    PromptPart,
    SamplingOptions,
    Spliced,
    VisionFeatures,
    VisionInputs,
)
from edge_vlm_ros.engines import never
from edge_vlm_ros.engines import open_engine as open_real
from edge_vlm_ros.engines.base import Engine, KVCache, Logits, NextToken, OnLoaded, StopCheck
from support.broken.order import Orders, carry_out, orders

_T = TypeVar('_T')
_PREFIX = 'broken-'
_NAN_BITS = 0x7FC0
_Run = Callable[[], Any]


def open_engine(
    files: ModelFiles,
    device_ids: tuple[int, ...],
    options: Mapping[str, object],
    on_loaded: OnLoaded,
) -> Engine:
    """Load a model with the engine behind the name; see `engines.open_engine`."""
    del options
    chip = files.chip.removeprefix(_PREFIX)
    given = orders()
    seam = Seam()
    _SEAMS.get(chip, _no_seam)(seam)
    _break_decoder(given)
    carry_out(given.take('load'))
    inner = open_real(chip, replace(files, chip=chip), device_ids, {}, on_loaded)
    return BrokenEngine(inner, given, seam)


class Seam:
    """Between an engine and its library: a fault that is to happen at the library's next run."""

    def __init__(self) -> None:
        self.kinds: frozenset[str] = frozenset()
        self.armed = ''

    def run(self, call: _Run, spoil: Callable[[Any], Any]) -> Any:
        """Do what the library does, or break as it would."""
        kind, self.armed = self.armed, ''
        if kind == 'error':
            raise RuntimeError('ordered to fail in the library')
        carry_out(kind)
        found = call()
        return spoil(found) if kind == 'wrong' else found


class BrokenEngine:
    """Any engine, broken in the stage that an order names.

    Args:
        inner: The engine.
        given: Orders.
        seam: To its library.
    """

    def __init__(self, inner: Engine, given: Orders, seam: Seam) -> None:
        self._inner, self._orders, self._seam = inner, given, seam
        self._is_head_wrong = False
        self._is_first = False

    @property
    def limits(self) -> EngineLimits:
        """Those of the engine."""
        return self._inner.limits

    @property
    def kv(self) -> KVCache:
        """That of the engine."""
        return self._inner.kv

    def select_kv(self, slot: int) -> None:
        """Have the engine select."""
        self._inner.select_kv(slot)

    def usable_prefix(
        self, shared: int, prompt: PromptPart, at_hand: Container[int] | None = None
    ) -> int:
        """Ask the engine."""
        return self._inner.usable_prefix(shared, prompt, at_hand)

    def plan_prefill(self, tokens: int, held: int | None = None) -> tuple[int, ...]:
        """Ask the engine."""
        return self._inner.plan_prefill(tokens, held)

    def logits(self) -> Logits:
        """Ask the engine."""
        return self._inner.logits()

    def encode(self, inputs: VisionInputs) -> VisionFeatures:
        """Encode, or break."""
        features, is_wrong = self._do('encode', lambda: self._inner.encode(inputs))
        if is_wrong and isinstance(features, Spliced):
            return Spliced(_no_numbers(features.rows))
        return features

    def prefill(
        self,
        part: PromptPart,
        features: Mapping[int, VisionFeatures],
        should_stop: StopCheck = never,
    ) -> None:
        """Prefill, or break."""
        _, is_wrong = self._do('prefill', lambda: self._inner.prefill(part, features, should_stop))
        self._is_head_wrong |= is_wrong
        self._is_first = True

    def next_token(self, sampling: SamplingOptions) -> NextToken:
        """Run the head, or break."""
        stage = 'first token' if self._is_first else 'later token'
        self._is_first = False
        chosen, is_wrong = self._do(stage, lambda: self._inner.next_token(sampling))
        if (is_wrong or self._is_head_wrong) and isinstance(chosen, Logits):
            self._is_head_wrong = False
            return Logits(np.full_like(chosen.values, np.nan))
        return chosen

    def decode(self, token: int, position: int) -> None:
        """Append a token, or break."""
        _, is_wrong = self._do('decode', lambda: self._inner.decode(token, position))
        self._is_head_wrong = is_wrong

    def close(self) -> None:
        """Close the engine, and break."""
        self._do('close', self._inner.close)

    def _do(self, stage: str, call: Callable[[], _T]) -> tuple[_T, bool]:
        """Call the engine; return what it says, and whether that is to be made wrong."""
        kind = self._orders.take(stage)
        if kind in self._seam.kinds:
            self._seam.armed = kind
            found = call()
            kind, self._seam.armed = self._seam.armed, ''
            if not kind:
                return found, False
            carry_out(kind)  # The library was not run in this stage.
            return found, kind == 'wrong'
        carry_out(kind)
        return call(), kind == 'wrong'


def _no_numbers(values: Any) -> Any:
    """Return as many values that are not numbers; uint16 are the bits of bfloat16."""
    return np.full_like(values, _NAN_BITS if values.dtype == np.uint16 else np.nan)


def _break_decoder(given: Orders) -> None:
    """Have the decoding of images break, too, before it looks at one."""
    from edge_vlm_ros.serving import feature_store

    store: Any = feature_store

    def breaking(decode: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def decode_or_break(image: Any) -> Any:
            kind = given.take('decode image')
            carry_out(kind)
            found = decode(image)
            if kind == 'wrong':
                is_frame = hasattr(found, 'pixels')
                return replace(found, pixels=found.pixels[..., :2]) if is_frame else found[..., :2]
            return found

        return decode_or_break

    # Of a camera's frame, and of an image that a request brings.
    store.decode_image = breaking(store.decode_image)
    store.decode_frame = breaking(store.decode_frame)


def _break_onnxruntime(seam: Seam) -> None:
    import onnxruntime

    seam.kinds = frozenset({'error', 'crash', 'hang', 'wrong', 'memory', 'panic', 'slow'})
    session = onnxruntime.InferenceSession

    class Broken(session):  # type: ignore[misc, valid-type]
        def run(self, *args: Any, **more: Any) -> Any:
            return seam.run(
                lambda: super(Broken, self).run(*args, **more),
                lambda found: [_no_numbers(array) for array in found],
            )

    onnxruntime.InferenceSession = Broken  # type: ignore[misc]


def _break_axera(seam: Seam) -> None:
    from support.axera.stub.compute import Stub

    # What the stub computes lies below C code, which no exception of Python's passes.
    seam.kinds = frozenset({'error', 'crash', 'hang', 'slow'})
    stub: Any = Stub
    run = stub._run

    def broken(self: Stub, *args: Any) -> int:
        try:
            found: int = seam.run(lambda: run(self, *args), lambda found: found)
        except RuntimeError:
            return 1
        return found

    stub._run = broken


def _no_seam(seam: Seam) -> None:
    del seam


_SEAMS = {'cpu': _break_onnxruntime, 'ax650': _break_axera}
