"""What `support.tiny_smolvlm.variants` uses of it."""

from enum import Enum
from pathlib import Path

class QuantType(Enum):
    QInt8 = 0
    QUInt8 = 1

def quantize_dynamic(
    model_input: Path, model_output: Path, *, weight_type: QuantType = ...
) -> None: ...
