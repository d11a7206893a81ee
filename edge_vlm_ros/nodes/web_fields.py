"""ROS messages as plain data for the page, with the fields and names of the messages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edge_vlm_ros.core import Answer, EdgeVlmError, ErrorCode, FinishReason
from edge_vlm_ros.msg import Answer as AnswerMsg

if TYPE_CHECKING:
    from collections.abc import Mapping

DIAGNOSTIC_VALUES = 64
"""Values of one part that are passed on; the parts of this package have fewer."""


def fields_of(message: Any) -> Any:
    """Return a message as mappings, lists and plain values; NaN, which JSON lacks, as None."""
    if hasattr(message, 'get_fields_and_field_types'):
        return {
            name: fields_of(getattr(message, name))
            for name in message.get_fields_and_field_types()
        }
    if isinstance(message, float):
        return message if math.isfinite(message) else None
    if isinstance(message, (str, bool, int)):
        return message
    if isinstance(message, (bytes, bytearray)):
        return list(message)
    return [fields_of(each) for each in message]


def fields_of_answer(message: AnswerMsg) -> dict[str, Any]:
    """Return an answer, with the names of its two codes."""
    fields: dict[str, Any] = fields_of(message)
    return {
        **fields,
        'finish_reason_name': name_of_finish(message.finish_reason),
        'error_code_name': name_of_error(message.error_code),
    }


def refusal(request_id: str, session_id: str, error: EdgeVlmError) -> Mapping[str, Any]:
    """Return the answer to a question that never got to the node."""
    failed = Answer.failed(request_id, error, session_id=session_id)
    message = AnswerMsg(
        request_id=request_id,
        session_id=session_id,
        finish_reason=int(failed.finish_reason),
        error_code=int(failed.error_code),
        message=failed.message,
    )
    return fields_of_answer(message)


def name_of_error(code: int) -> str:
    """Return the name of an error code; of one that is not known the number."""
    return ErrorCode(code).name if code in set(ErrorCode) else str(code)


def name_of_finish(reason: int) -> str:
    """Return the name of how an answer ended; of one that is not known the number."""
    return FinishReason(reason).name if reason in set(FinishReason) else str(reason)
