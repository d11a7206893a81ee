"""What a session says of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np


class NodeArg:
    """Name, numpy dtype and shape (list of int) of an input or output."""

    def __init__(self, name: str, dtype: np.dtype[Any], shape: list[int]) -> None:
        self.name = name
        self.dtype = dtype
        self.shape = shape
