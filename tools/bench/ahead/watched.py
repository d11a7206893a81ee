"""A pipeline whose wishes are waited for, and frames to ask it about."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_vlm_ros.core import (
    Answer,
    FrameSource,
    Prefix,
    Question,
    RawImage,
    SamplingOptions,
    ShownAs,
    StoredFrame,
)
from edge_vlm_ros.serving import VlmPipeline
from edge_vlm_ros.serving.shown_frames import name_frame

if TYPE_CHECKING:
    from edge_vlm_ros.core import FrameKey
    from edge_vlm_ros.serving.ahead import AheadReport

WINDOW = ShownAs.AMONG_OTHERS
PATIENCE_S = 300.0
_stamps = itertools.count(1)


def camera_frame(pixels: NDArray[np.uint8], at_ns: int = 0) -> StoredFrame:
    """Store an image (rows, columns, 3) as a frame of a camera; never twice the same frame.

    Args:
        pixels: RGB.
        at_ns: When it came; 0 = at no time that matters.
    """
    stamp = next(_stamps)
    rows, columns = pixels.shape[:2]
    image = RawImage('rgb8', columns, rows, 3 * columns, pixels.reshape(-1).data)
    return StoredFrame(FrameSource('camera'), at_ns or stamp, image, at_ns or stamp)


def names_of(frames: tuple[StoredFrame, ...]) -> tuple[FrameKey, ...]:
    """Name frames as reports do."""
    return tuple(map(name_frame, frames))


@dataclass(frozen=True, slots=True)
class Asked:
    """One question.

    Attributes:
        first_s: From the question to the first token, seconds.
        answer: All else.
    """

    first_s: float
    answer: Answer


class Watched:
    """A pipeline that is told what is wanted, and waited for.

    Args:
        pipeline: Anything may have been asked of it.
        system_prompt: Of all questions; '' = the model's own.
    """

    def __init__(self, pipeline: VlmPipeline, system_prompt: str = '') -> None:
        self.pipeline = pipeline
        self.system_prompt = system_prompt
        self._changed = threading.Condition()
        self._report: AheadReport | None = None
        pipeline.listen_ahead(self._take)

    def ready(self, frames: tuple[StoredFrame, ...], session_id: str = '') -> AheadReport:
        """Want frames that were never wanted before, wait until they are in the KV cache.

        Raises:
            RuntimeError: They cannot be made ready, or not in time.
        """
        wanted = names_of(frames)
        shown_as = WINDOW if frames else None
        with self._changed:
            self.pipeline.want_prefix(Prefix(frames, session_id, self.system_prompt, shown_as))
            is_there = self._changed.wait_for(lambda: self._is_settled(wanted), PATIENCE_S)
            report = self._report
        if not is_there or report is None or report.problem:
            raise RuntimeError(f'{len(frames)} frames were not made ready: {report}')
        return report

    def _is_settled(self, wanted: tuple[FrameKey, ...]) -> bool:
        report = self._report
        if report is None or report.wanted != wanted:
            return False
        return bool(report.problem) or report.ready == wanted

    def ask(
        self,
        words: str,
        frames: tuple[StoredFrame, ...] = (),
        *,
        max_tokens: int = 1,
        session_id: str = '',
    ) -> Asked:
        """Ask, wait for the answer.

        Raises:
            RuntimeError: The question was not answered.
        """
        question = Question(
            words,
            frames=frames,
            session_id=session_id,
            system_prompt=self.system_prompt,
            sampling=SamplingOptions(max_tokens=max_tokens),
            shown_as=WINDOW if frames else None,
        )
        answer = self.pipeline.ask(question).answer(PATIENCE_S)
        if not answer.success:
            raise RuntimeError(answer.message)
        return Asked(answer.timings.time_to_first_token_s, answer)

    def _take(self, report: AheadReport) -> None:
        with self._changed:
            self._report = report
            self._changed.notify_all()
