"""What every engine refuses, whatever the chip; and the plain way to cut a prompt."""

from __future__ import annotations

from collections.abc import Mapping

from edge_vlm_ros.core import (
    EdgeVlmError,
    EngineLimits,
    PromptPart,
    PromptTooLongError,
    Spliced,
    VisionFeatures,
)


def even_pieces(tokens: int, chunk: int) -> tuple[int, ...]:
    """Cut `tokens` into pieces of `chunk`, the last one shorter; 0 = one piece."""
    step = chunk or tokens
    return tuple(min(step, tokens - start) for start in range(0, tokens, step))


def check_fits(tokens: int, held: int, limits: EngineLimits) -> None:
    """Refuse tokens that do not fit behind the `held` ones in the KV cache.

    Raises:
        PromptTooLongError: They do not.
    """
    if held + tokens > limits.context_tokens:
        raise PromptTooLongError(
            f'{tokens} tokens do not fit behind {held}: '
            f'the context holds {limits.context_tokens} tokens'
        )


def check_tokens(part: PromptPart, limits: EngineLimits) -> None:
    """Refuse ids that the embedding table does not have.

    Raises:
        EdgeVlmError: There is one; tokenizer and model do not belong together.
    """
    low, high = int(part.tokens.min()), int(part.tokens.max())
    if low < 0 or high >= limits.vocab_size:
        wrong = low if low < 0 else high
        raise EdgeVlmError(
            f'token id {wrong} is not in the vocabulary of {limits.vocab_size}: '
            "the tokenizer is not this model's own"
        )


def check_spans(
    part: PromptPart, features: Mapping[int, VisionFeatures], limits: EngineLimits
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
        if width != limits.hidden_size:
            raise EdgeVlmError(
                f'features of image {span.image} are {width} wide, '
                f'the language model {limits.hidden_size}'
            )
