"""What this package uses of axengine, which ships no types. Source: pyaxengine 0.1.3."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

axengine_provider_name: str
axclrt_provider_name: str

def get_available_providers() -> list[str]: ...

class NodeArg:
    name: str
    dtype: np.dtype[Any]
    shape: list[int]

class InferenceSession:
    def __init__(
        self,
        path_or_bytes: str,
        sess_options: object | None = None,
        providers: list[str] | None = None,
        provider_options: Sequence[Mapping[str, object]] | None = None,
    ) -> None: ...
    def get_inputs(self, shape_group: int = 0) -> list[NodeArg]: ...
    def get_outputs(self, shape_group: int = 0) -> list[NodeArg]: ...
    def run(
        self,
        output_names: list[str] | None,
        input_feed: Mapping[str, NDArray[Any]],
        run_options: object | None = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]: ...
