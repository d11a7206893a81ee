"""What `support.tiny_smolvlm.variants` uses of it."""

from typing import Any

def convert_float_to_float16(model: Any) -> Any: ...
