"""What a question asks for that the loaded model cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_vlm_ros.core import BadRequestError, ErrorCode, TooManyFramesError

if TYPE_CHECKING:
    from edge_vlm_ros.core import Question
    from edge_vlm_ros.serving.model_info import ChipModelInfo


def check_question(question: Question, images: int, info: ChipModelInfo) -> None:
    """Refuse what this model cannot do, before anything is done.

    Args:
        question: What is asked.
        images: That it shows, at least, after what can be left out is; `PromptFitter` counts the
            tiles of each.
        info: The model.

    Raises:
        TooManyFramesError: More images than the model takes.
        BadRequestError: An option that the chip does not have (UNSUPPORTED_OPTION).
    """
    limits = info.limits
    if limits.max_images and images > limits.max_images:
        raise TooManyFramesError(
            f'{len(question.frames)} frames make at least {images} images, the model takes '
            f'{limits.max_images} in one prompt'
        )
    if limits.has_logits:
        return
    sampling = question.sampling
    is_one = sampling.top_k == 1  # The best one, which is what such a chip chooses.
    wanted = {
        'temperature': sampling.temperature > 0 and not is_one,
        'top_p': sampling.top_p < 1 and not is_one,
        'top_k': sampling.top_k > 1,
        'seed': sampling.seed > 0 and not is_one,
        'repetition_penalty': sampling.repetition_penalty != 1,
    }
    refused = [name for name, is_wanted in wanted.items() if is_wanted]
    if refused:
        raise BadRequestError(
            f'{info.model} on {info.chip} chooses the best token on the chip and gives no scores: '
            f'{" and ".join(refused)} cannot be set; max_tokens, stop and choices can',
            ErrorCode.UNSUPPORTED_OPTION,
        )
