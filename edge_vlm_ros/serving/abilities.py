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
    sampling = question.sampling
    wants_sampling = sampling.temperature > 0 or sampling.top_p < 1 or sampling.top_k > 0
    if wants_sampling and limits.samples_on_chip and not limits.has_logits:
        raise BadRequestError(
            f'{info.model} on {info.chip} chooses tokens on the chip: '
            'temperature, top_p and top_k cannot be set',
            ErrorCode.UNSUPPORTED_OPTION,
        )
