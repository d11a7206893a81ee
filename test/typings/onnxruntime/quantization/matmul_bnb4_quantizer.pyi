"""What `support.tiny_smolvlm.variants` uses of it."""

from typing import Any

class MatMulBnb4Quantizer:
    model: Any
    def __init__(self, model: Any, quant_type: int, block_size: int) -> None: ...
    def process(self) -> None: ...
