"""Every fault in every stage, and the code that its question ends with."""

from __future__ import annotations

from typing import Final

from edge_vlm_ros.core import ErrorCode

DEVICE, INTERNAL, DIED, NONE = (
    ErrorCode.DEVICE,
    ErrorCode.INTERNAL,
    ErrorCode.ENGINE_DIED,
    ErrorCode.NONE,
)

# What dies or hangs before the first word is asked again, and answered; after it, it is lost.
_IN_A_CALL: Final = {
    'error': DEVICE,
    'crash': NONE,
    'hang': NONE,
    'wrong': DEVICE,
    'memory': DEVICE,
    'panic': INTERNAL,
    'slow': NONE,
}
TABLE: Final[dict[str, dict[str, ErrorCode]]] = {
    'load': dict.fromkeys(['error', 'crash', 'hang', 'memory', 'panic', 'slow'], NONE),
    'decode image': {**_IN_A_CALL, 'error': ErrorCode.BAD_IMAGE, 'wrong': INTERNAL},
    'encode': _IN_A_CALL,
    'prefill': _IN_A_CALL,
    'first token': _IN_A_CALL,
    'between chunks': {**_IN_A_CALL, 'crash': DIED, 'hang': DEVICE},
    'close': dict.fromkeys(
        ['error', 'crash', 'hang', 'memory', 'panic', 'slow'], ErrorCode.CANCELLED
    ),
}
CELLS: Final = [(stage, kind) for stage, codes in TABLE.items() for kind in codes]
