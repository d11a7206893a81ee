"""What this package uses of ONNX Runtime, which ships no types. Source: onnxruntime 1.17 to 1.31."""

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

__version__: str

def get_available_providers() -> list[str]: ...
def set_default_logger_severity(severity: int) -> None: ...

class NodeArg:
    name: str
    type: str
    # a number, a name, or None where the file leaves the size open
    shape: list[int | str | None]

class OrtValue:
    @staticmethod
    def ortvalue_from_numpy(
        numpy_obj: NDArray[Any], device_type: str = ..., device_id: int = ...
    ) -> OrtValue: ...
    def numpy(self) -> NDArray[Any]: ...
    def shape(self) -> Sequence[int]: ...

class SessionOptions:
    enable_cpu_mem_arena: bool
    enable_mem_pattern: bool
    inter_op_num_threads: int
    intra_op_num_threads: int
    log_severity_level: int
    def __init__(self) -> None: ...
    def add_session_config_entry(self, key: str, value: str) -> None: ...

class InferenceSession:
    def __init__(
        self,
        path_or_bytes: str | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence[str] | None = None,
    ) -> None: ...
    def get_inputs(self) -> Sequence[NodeArg]: ...
    def get_outputs(self) -> Sequence[NodeArg]: ...
    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, NDArray[Any]]
    ) -> list[NDArray[Any]]: ...
    def run_with_ort_values(
        self, output_names: Sequence[str] | None, input_dict_ort_values: Mapping[str, OrtValue]
    ) -> list[OrtValue]: ...
