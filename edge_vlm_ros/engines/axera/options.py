"""How an Axera chip is driven."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from edge_vlm_ros.core import BadRequestError, ErrorCode

BACKENDS = ('auto', 'in_place', 'portable')


@dataclass(frozen=True, slots=True)
class AxeraOptions:
    """What may be chosen.

    Attributes:
        backend: 'auto' = in place where a trial at load gives what axengine gives, else portable;
            'in_place' or 'portable' = that one or an error.
    """

    backend: str = 'auto'

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise BadRequestError(
                f'axera option backend={self.backend!r}: one of {", ".join(BACKENDS)}',
                ErrorCode.UNSUPPORTED_OPTION,
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, object]) -> AxeraOptions:
        """Read options by name.

        Raises:
            BadRequestError: One is unknown or has no such value.
        """
        known = [field.name for field in fields(cls)]
        texts: dict[str, str] = {}
        for name, value in options.items():
            if name not in known or not isinstance(value, str):
                raise BadRequestError(
                    f'axera option {name}={value!r}: known are {", ".join(known)}, texts',
                    ErrorCode.UNSUPPORTED_OPTION,
                )
            texts[name] = value
        return cls(**texts)
