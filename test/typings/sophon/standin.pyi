"""What tests see of the stand-in (test/support/sophgo/standin); the real package has nothing of this."""

from typing import Any

from sophon.sail import Tensor

class MisuseError(RuntimeError): ...

class Traffic:
    calls: int
    bytes: int

class Counters:
    s2d: Traffic
    d2s: Traffic
    d2d: Traffic
    memset: Traffic
    allocations: Traffic
    launches: dict[str, int]
    launch_copies: dict[str, Traffic]
    def as_dict(self) -> dict[str, Any]: ...

def counters() -> Counters: ...
def reset() -> None: ...
def address_of(tensor: Tensor) -> int: ...
def live_device_bytes() -> int: ...
def live_engines() -> int: ...
