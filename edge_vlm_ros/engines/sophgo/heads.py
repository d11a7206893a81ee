"""From the last hidden state to the next token: on the chip where its nets can, else logits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import prod
from typing import Protocol

import numpy as np

from edge_vlm_ros.core import BadRequestError, DeviceError, ErrorCode, SamplingOptions
from edge_vlm_ros.engines.base import ChosenToken, Logits, NextToken
from edge_vlm_ros.engines.sophgo.embedding import TokenSlot
from edge_vlm_ros.engines.sophgo.expect import (
    Wanted,
    expect,
    expect_dtype,
    input_of,
    misfit,
    net_of,
    output_of,
)
from edge_vlm_ros.engines.sophgo.layers import DecoderShapes
from edge_vlm_ros.engines.sophgo.nets import DType, Nets
from edge_vlm_ros.engines.sophgo.runtime import Launch, Runtime
from edge_vlm_ros.engines.sophgo.tensors import DeviceTensor


class HeadRunner(Protocol):
    """The nets after the last layer, with their tensors."""

    def next_token(self, row: DeviceTensor, sampling: SamplingOptions, draw: int) -> NextToken:
        """Choose or score the token that follows.

        Args:
            row: The last hidden state, (1, hidden).
            sampling: How to choose.
            draw: Which draw of the sampler's seed this is: the same seed and draw give the same
                number.
        """
        ...

    def logits(self, row: DeviceTensor) -> Logits:
        """Score the token that follows; of a head that gives scores.

        Args:
            row: The last hidden state, (1, hidden).
        """
        ...


class Head(Protocol):
    """The nets after the last layer, as they declare themselves."""

    @property
    def vocab(self) -> int | None:
        """How many scores it gives; None = it gives the token itself."""
        ...

    @property
    def samples_on_chip(self) -> bool:
        """Whether a net chooses tokens where one does what is asked."""
        ...

    def describe(self) -> str:
        """Say what it is, for reports."""
        ...

    def start(self, runtime: Runtime, row: DeviceTensor, slot: TokenSlot) -> HeadRunner:
        """Bind its nets; `row` is any hidden state to bind them with at first.

        Raises:
            DeviceError: There is not enough memory.
        """
        ...


def read_head(nets: Nets, decoder: DecoderShapes) -> Head:
    """Read the head that the nets have.

    Raises:
        ModelFileError: A net is missing, or takes or gives what no head of this engine does.
    """
    net = net_of(nets, 'lm_head')
    hidden = input_of(net, 0)
    if prod(hidden.shape) != decoder.hidden or hidden.dtype is not decoder.half:
        expected = f'{decoder.hidden} {decoder.half.value}'
        raise misfit(net, hidden, expected, f'{hidden.shape} {hidden.dtype.value}')
    scores = output_of(net, 0)
    if prod(scores.shape) == 1:
        expect_dtype(net, scores, DType.INT32)
        return TokenHead()
    expect_dtype(net, scores, DType.FLOAT32)
    return LogitsHead.read(nets, prod(scores.shape))


@dataclass(frozen=True, slots=True)
class TokenHead:
    """`lm_head` gives the best token itself."""

    @property
    def vocab(self) -> None:
        """No scores."""
        return

    @property
    def samples_on_chip(self) -> bool:
        """Greedily."""
        return True

    def describe(self) -> str:
        """Say what it is."""
        return 'the best token'

    def start(self, runtime: Runtime, row: DeviceTensor, slot: TokenSlot) -> HeadRunner:
        """Bind `lm_head`."""
        return _TokenRunner(runtime, row, slot)


class SamplerKind(Enum):
    """Which net samples; they differ in the order of their inputs."""

    SAMPLE = 'sample_head'
    PENALTY = 'penalty_sample_head'


@dataclass(frozen=True, slots=True)
class Sampler:
    """A net that turns logits into candidates with probabilities.

    Attributes:
        kind: Which.
        seen_tokens: Ids it takes for the repetition penalty.
        candidates: It gives at most.
    """

    kind: SamplerKind
    seen_tokens: int
    candidates: int

    @classmethod
    def read(cls, nets: Nets, vocab: int) -> Sampler | None:
        """Read the one that the nets have; None = none.

        Raises:
            ModelFileError: A tensor is not what such a net has.
        """
        kind = next((kind for kind in SamplerKind if kind.value in nets), None)
        if kind is None:
            return None
        net = nets[kind.value]
        logits: Wanted = ((1, vocab), DType.FLOAT32)
        seen: Wanted = (input_of(net, 1).shape, DType.INT32)
        number: Wanted = ((1,), DType.FLOAT32)
        count: Wanted = ((1,), DType.INT32)
        candidates = output_of(net, 0).shape
        inputs = {
            SamplerKind.SAMPLE: [logits, seen, number, number, count, number],
            SamplerKind.PENALTY: [logits, seen, number, number, number],
        }[kind]
        expect(net, inputs, [(candidates, DType.FLOAT32), (candidates, DType.INT32)])
        return cls(kind, prod(seen[0]), prod(candidates))


@dataclass(frozen=True, slots=True)
class LogitsHead:
    """`lm_head` gives logits.

    Attributes:
        vocab: How many.
        has_greedy: Whether `greedy_head` chooses the best on the chip.
        sampler: The net that samples; None = none.
    """

    vocab: int
    has_greedy: bool
    sampler: Sampler | None

    @classmethod
    def read(cls, nets: Nets, vocab: int) -> LogitsHead:
        """Read the nets that choose from `vocab` scores.

        Raises:
            ModelFileError: A tensor is not what such a net has.
        """
        has_greedy = 'greedy_head' in nets
        if has_greedy:
            expect(nets['greedy_head'], [((1, vocab), DType.FLOAT32)], [((1, 1), DType.INT32)])
        return cls(vocab, has_greedy, Sampler.read(nets, vocab))

    @property
    def samples_on_chip(self) -> bool:
        """With the net that samples."""
        return self.sampler is not None

    def describe(self) -> str:
        """Say what it is."""
        nets = ['greedy_head'] if self.has_greedy else []
        nets += [self.sampler.kind.value] if self.sampler else []
        return f'{self.vocab} logits; on the chip: {", ".join(nets) or "none"}'

    def start(self, runtime: Runtime, row: DeviceTensor, slot: TokenSlot) -> HeadRunner:
        """Bind `lm_head` and the nets that choose."""
        return _LogitsRunner(runtime, self, row, slot)


class _TokenRunner:
    """`lm_head` with the arg max inside: greedy and nothing else."""

    def __init__(self, runtime: Runtime, row: DeviceTensor, slot: TokenSlot) -> None:
        self._head = Launch(runtime, 'lm_head', [row], [slot.tensor])
        self._slot = slot

    def next_token(self, row: DeviceTensor, sampling: SamplingOptions, draw: int) -> ChosenToken:
        """Choose the best token."""
        del draw
        if not sampling.is_greedy:
            raise BadRequestError(
                'this bmodel chooses the best token on the chip and gives no scores: temperature '
                f'is 0, not {sampling.temperature}, or top_k is 1 (compile with --do_sample)',
                ErrorCode.UNSUPPORTED_OPTION,
            )
        self._head.bind_input(0, row)
        self._slot.forget()
        self._head.run()
        return ChosenToken(self._slot.take())

    def logits(self, row: DeviceTensor) -> Logits:
        """Give none; `EngineLimits.has_logits` is false."""
        raise AssertionError(row)


class _LogitsRunner:
    """`lm_head` with logits, and the nets that choose from them."""

    def __init__(
        self, runtime: Runtime, head: LogitsHead, row: DeviceTensor, slot: TokenSlot
    ) -> None:
        self._logits = runtime.allocate((1, head.vocab), DType.FLOAT32)
        self._head = Launch(runtime, 'lm_head', [row], [self._logits])
        self._slot = slot
        self._greedy: Launch | None = None
        if head.has_greedy:
            self._greedy = Launch(runtime, 'greedy_head', [self._logits], [slot.tensor])
        self._sampler: _SamplerRunner | None = None
        if head.sampler is not None:
            self._sampler = _SamplerRunner(runtime, head.sampler, self._logits)

    def next_token(self, row: DeviceTensor, sampling: SamplingOptions, draw: int) -> NextToken:
        """Choose on the chip where a net does just that, else give the logits."""
        self._run_head(row)
        if sampling.is_greedy:
            if self._greedy is not None:
                self._slot.forget()
                self._greedy.run()
                return ChosenToken(self._slot.take())
        elif self._sampler is not None and self._sampler.can(sampling):
            return ChosenToken(self._sampler.choose(sampling, draw))
        return Logits(self._logits.read())

    def logits(self, row: DeviceTensor) -> Logits:
        """Give the logits, whatever could choose from them."""
        self._run_head(row)
        return Logits(self._logits.read())

    def _run_head(self, row: DeviceTensor) -> None:
        self._head.bind_input(0, row)
        self._head.run()


class _SamplerRunner:
    """`sample_head` or `penalty_sample_head`: candidates with probabilities, one drawn here.

    Among at most 50 candidates the net keeps those before the one that crosses top_p, and the
    first five always: a little other than `text.TokenSampler`. The repetition penalty stays off:
    with one, the host chooses from the logits, as for every chip.

    Source: LLM-TPU's exporters of both heads; their numbers checked on the emulator.
    """

    def __init__(self, runtime: Runtime, sampler: Sampler, logits: DeviceTensor) -> None:
        self._sampler = sampler
        self._runtime = runtime
        kind = sampler.kind
        seen_shape = runtime.nets[kind.value].inputs[1].shape
        seen = runtime.allocate(seen_shape, DType.INT32)
        penalty = runtime.allocate((1,), DType.FLOAT32)
        penalty.write(np.ones(1, np.float32))
        self._temperature = runtime.allocate((1,), DType.FLOAT32)
        self._top_p = runtime.allocate((1,), DType.FLOAT32)
        self._top_k = runtime.allocate((1,), DType.INT32)
        shape = runtime.nets[kind.value].outputs[0].shape
        self._probabilities = runtime.allocate(shape, DType.FLOAT32)
        self._ids = runtime.allocate(shape, DType.INT32)
        inputs = {
            SamplerKind.SAMPLE: [
                *(logits, seen, penalty),
                *(self._temperature, self._top_k, self._top_p),
            ],
            SamplerKind.PENALTY: [logits, seen, self._top_p, self._temperature, penalty],
        }[kind]
        outputs = [self._probabilities, self._ids]
        self._launch = Launch(runtime, kind.value, inputs, outputs)
        self._sent: tuple[float, float, int] | None = None

    def can(self, sampling: SamplingOptions) -> bool:
        """Return whether the net can do what is asked."""
        if self._sampler.kind is SamplerKind.PENALTY:
            return sampling.top_k in {0, self._sampler.candidates}
        return sampling.top_k <= self._sampler.candidates

    def choose(self, sampling: SamplingOptions, draw: int) -> int:
        """Run the net and draw one of its candidates."""
        count = sampling.top_k or self._sampler.candidates
        self._send(sampling, count)
        self._launch.run()
        probabilities = self._probabilities.read(count).astype(np.float64)
        sums = probabilities.cumsum()
        if not np.isfinite(sums[-1]) or sums[-1] <= 0:
            raise DeviceError(f'{self._sampler.kind.value} gave probabilities that sum {sums[-1]}')
        number = np.random.default_rng((sampling.seed % 2**64, draw)).random()
        chosen = min(int(np.searchsorted(sums, number * sums[-1], side='right')), count - 1)
        return int(self._ids.read(1, chosen)[0])

    def _send(self, sampling: SamplingOptions, count: int) -> None:
        wanted = (sampling.temperature, sampling.top_p, count)
        if wanted == self._sent:
            return
        self._temperature.write(np.array([sampling.temperature], np.float32))
        self._top_p.write(np.array([sampling.top_p], np.float32))
        self._top_k.write(np.array([count], np.int32))
        self._sent = wanted
