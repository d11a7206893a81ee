"""What every engine refuses, whatever the chip; and the plain way to cut a prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    CancelledError,
    DeviceError,
    EdgeVlmError,
    EngineLimits,
    PromptPart,
    PromptTooLongError,
    Spliced,
    VisionFeatures,
    VisionInputs,
    VisionSpan,
)
from edge_vlm_ros.engines.base import StopCheck
from edge_vlm_ros.engines.bf16 import has_nan


def even_pieces(tokens: int, chunk: int) -> tuple[int, ...]:
    """Cut `tokens` (1 or more) into pieces of `chunk`, the last one shorter; 0 = one piece."""
    step = chunk or tokens
    return tuple(min(step, tokens - start) for start in range(0, tokens, step))


def check_stop(should_stop: StopCheck) -> None:
    """Give up where the caller says so.

    Raises:
        CancelledError: `should_stop` said so.
    """
    if should_stop():
        raise CancelledError('the prefill was given up')


def check_fits(tokens: int, held: int, limits: EngineLimits) -> None:
    """Refuse tokens that do not fit after the `held` ones in the KV cache.

    Raises:
        PromptTooLongError: Together they are more than the context holds.
    """
    if held + tokens > limits.context_tokens:
        raise PromptTooLongError(
            f'{tokens} tokens do not fit after {held}: '
            f'the context holds {limits.context_tokens} tokens'
        )


def check_features(features: VisionFeatures) -> None:
    """Refuse features that are not numbers: kept, they would spoil every answer about the frame.

    Raises:
        DeviceError: One is NaN.
    """
    match features:
        case Spliced():
            used = (features.rows, *features.deepstack)
        case _:
            used = (features.states[: features.rows_used],)
    for rows in used:
        if rows.size and _has_nan(rows):
            raise DeviceError(
                f'the vision tower gave {rows.shape[0]} rows with values that are no numbers: '
                'the device computed nonsense'
            )


def _has_nan(values: NDArray[Any]) -> bool:
    if values.dtype == np.uint16:  # The bits of bfloat16.
        return has_nan(values)
    return bool(np.isnan(values.min()))  # A minimum is NaN where one value is.


def check_piece(tokens: int, most: int) -> None:
    """Refuse a part that is longer than what the engine runs at once.

    Raises:
        PromptTooLongError: It has more than `most` tokens, so it is no piece of `plan_prefill`.
    """
    if tokens > most:
        raise PromptTooLongError(
            f'{tokens} tokens in one prefill, this engine takes {most} at once here'
        )


def check_ids(low: int, high: int, limits: EngineLimits) -> None:
    """Refuse ids from `low` to `high` that the embedding table does not have.

    Raises:
        EdgeVlmError: There is one; tokenizer and model do not belong together.
    """
    if low < 0 or high >= limits.vocab_size:
        wrong = low if low < 0 else high
        raise EdgeVlmError(
            f'token id {wrong} is not in the vocabulary of {limits.vocab_size}: '
            "the tokenizer is not this model's own"
        )


def check_positions(low: int, high: int, limits: EngineLimits) -> None:
    """Refuse positions from `low` to `high` that the model has no rotation for.

    No family counts positions faster than tokens, so those of a prompt that fits are always known.

    Raises:
        EdgeVlmError: One is negative.
        PromptTooLongError: One is past the context's last.
    """
    if low < 0:
        raise EdgeVlmError(f'position {low} is before the first one, 0')
    if high >= limits.context_tokens:
        raise PromptTooLongError(
            f'position {high} is past the last one this model knows, {limits.context_tokens - 1}'
        )


def check_tiles(inputs: VisionInputs, px: int) -> None:
    """Refuse pixels that are no tiles of `px` x `px`.

    Raises:
        EdgeVlmError: They have another shape than (tiles, 3, px, px).
    """
    if inputs.pixels.ndim != 4 or inputs.pixels.shape[1:] != (3, px, px):
        raise EdgeVlmError(
            f'pixels have shape {inputs.pixels.shape}, expected (tiles, 3, {px}, {px})'
        )


def check_spans(
    part: PromptPart,
    features: Mapping[int, VisionFeatures],
    hidden_size: int,
    deepstack_layers: int = 0,
) -> None:
    """Refuse vision spans whose features are missing, too short or of another width.

    Raises:
        EdgeVlmError: The prompt and the features do not belong together.
    """
    for span in part.spans:
        found = features.get(span.image)
        if not isinstance(found, Spliced):
            raise EdgeVlmError(f'no spliced features for image {span.image} of the prompt')
        rows, width = found.rows.shape
        if span.first_row + len(span) > rows:
            raise EdgeVlmError(
                f'the prompt asks for rows {span.first_row} to {span.first_row + len(span)} '
                f'of image {span.image}, which has {rows}'
            )
        if width != hidden_size:
            raise EdgeVlmError(
                f'features of image {span.image} are {width} wide, '
                f'the language model {hidden_size}'
            )
        if len(found.deepstack) != deepstack_layers:
            raise EdgeVlmError(
                f'image {span.image} has features for {len(found.deepstack)} of the first layers, '
                f'the language model adds them after {deepstack_layers}'
            )


def rows_of(span: VisionSpan, features: Mapping[int, VisionFeatures]) -> NDArray[Any]:
    """Return the feature rows that take a span's place, (tokens, hidden); `check_spans` passed."""
    found = features[span.image]
    assert isinstance(found, Spliced)
    rows: NDArray[Any] = found.rows[span.first_row : span.first_row + len(span)]
    return rows


def deepstack_of(
    span: VisionSpan, features: Mapping[int, VisionFeatures]
) -> tuple[NDArray[Any], ...]:
    """Return what the first layers add to a span's tokens, (tokens, hidden) for each of them."""
    found = features[span.image]
    assert isinstance(found, Spliced)
    stop = span.first_row + len(span)
    return tuple(rows[span.first_row : stop] for rows in found.deepstack)
