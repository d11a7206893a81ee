"""The session that callers see."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from axengine import _environment
from axengine._base_session import Session, SessionOptions
from axengine._node import NodeArg
from axengine._providers import (
    axclrt_provider_name,
    axengine_provider_name,
    get_available_providers,
)


class InferenceSession:
    """One model on the chip or on a card."""

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str],
        sess_options: SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        del kwargs
        self._sess_options = sess_options
        self._provider = _choose(providers)
        print(f'[INFO] Using provider: {self._provider}')
        self._sess = _open(self._provider, path_or_bytes, provider_options)

    def __enter__(self) -> InferenceSession:  # noqa: PYI034 (Python 3.10)
        return self

    def __exit__(self, *error: object) -> None:
        """Free nothing, as in the package."""

    def get_session_options(self) -> SessionOptions | None:
        """Give back what was given."""
        return self._sess_options

    def get_providers(self) -> str:
        """Name the one that was chosen."""
        return self._provider

    def get_inputs(self, shape_group: int = 0) -> list[NodeArg]:
        """List a group's inputs."""
        return self._sess.get_inputs(shape_group)

    def get_outputs(self, shape_group: int = 0) -> list[NodeArg]:
        """List a group's outputs."""
        return self._sess.get_outputs(shape_group)

    def run(
        self,
        output_names: list[str] | None,
        input_feed: dict[str, NDArray[Any]],
        run_options: object = None,
        shape_group: int = 0,
    ) -> list[NDArray[Any]]:
        """Run a group: copy the feeds in, and the outputs out into fresh arrays."""
        return self._sess.run(output_names, input_feed, run_options, shape_group)


def _choose(providers: Sequence[str | tuple[str, dict[Any, Any]]] | None) -> str:
    available = get_available_providers()
    if providers is None:
        return available[0]
    if isinstance(providers, str):
        if providers not in available:
            raise ValueError(f"Selected provider: '{providers}' is not available.")
        return providers
    chosen: str | None = None
    if isinstance(providers, list):  # a tuple falls through to the error, as in the package
        # Options in a (name, options) tuple are accepted and ignored.
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        absent = [name for name in names if name not in available]
        chosen = next((name for name in names if name in available), None)
        if absent and chosen is None:
            raise ValueError(f'Selected provider(s): {absent} is(are) not available.')
        if absent:
            print(f'[WARNING] Selected provider(s): {absent} is(are) not available.')
    if chosen is None:
        raise ValueError(f'No available provider found in {providers}.')
    return chosen


def _open(provider: str, source: Any, provider_options: Any) -> Session:
    if provider == axclrt_provider_name and _environment.library_folder():
        from axengine import _axclrt_c

        return _axclrt_c.AXCLRTSession(source, provider_options)
    if provider == axclrt_provider_name:
        from axengine._axclrt import AXCLRTSession

        return AXCLRTSession(source, provider_options)
    assert provider == axengine_provider_name
    from axengine._axe import AXEngineSession

    return AXEngineSession(source)
