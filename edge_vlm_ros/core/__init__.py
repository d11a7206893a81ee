"""The words every room shares: frames, questions, prompts, features, answers, limits, errors."""

from edge_vlm_ros.core.answer import Answer, AnswerChunk, FinishReason, Timings
from edge_vlm_ros.core.clock import NS_PER_S, Clock, ManualClock, SteadyClock
from edge_vlm_ros.core.errors import (
    BadImageError,
    BadRequestError,
    BusyError,
    CancelledError,
    DeadlineError,
    DeviceError,
    EdgeVlmError,
    ErrorCode,
    ModelFileError,
    NoFreshFrameError,
    NotReadyError,
    PromptTooLongError,
    TooManyFramesError,
)
from edge_vlm_ros.core.frames import (
    Buffer,
    CompressedImage,
    Frame,
    FrameKey,
    FrameRef,
    FrameSource,
    RawImage,
    RgbImage,
    StoredFrame,
)
from edge_vlm_ros.core.limits import EngineLimits
from edge_vlm_ros.core.model_files import ModelFiles
from edge_vlm_ros.core.prompt import (
    Positions,
    PromptPart,
    TokenIds,
    VisionSpan,
    join_parts,
    text_part,
)
from edge_vlm_ros.core.question import MAX_QUESTION_BYTES, Question, SamplingOptions
from edge_vlm_ros.core.report import ModelReport, ReportTable
from edge_vlm_ros.core.vision import CrossAttended, Spliced, VisionFeatures, VisionInputs

__all__ = [
    'MAX_QUESTION_BYTES',
    'NS_PER_S',
    'Answer',
    'AnswerChunk',
    'BadImageError',
    'BadRequestError',
    'Buffer',
    'BusyError',
    'CancelledError',
    'Clock',
    'CompressedImage',
    'CrossAttended',
    'DeadlineError',
    'DeviceError',
    'EdgeVlmError',
    'EngineLimits',
    'ErrorCode',
    'FinishReason',
    'Frame',
    'FrameKey',
    'FrameRef',
    'FrameSource',
    'ManualClock',
    'ModelFileError',
    'ModelFiles',
    'ModelReport',
    'NoFreshFrameError',
    'NotReadyError',
    'Positions',
    'PromptPart',
    'PromptTooLongError',
    'Question',
    'RawImage',
    'ReportTable',
    'RgbImage',
    'SamplingOptions',
    'Spliced',
    'SteadyClock',
    'StoredFrame',
    'Timings',
    'TokenIds',
    'TooManyFramesError',
    'VisionFeatures',
    'VisionInputs',
    'VisionSpan',
    'join_parts',
    'text_part',
]
