"""Which of the vendor's libraries are there."""

from __future__ import annotations

from axengine import _environment

axengine_provider_name = 'AxEngineExecutionProvider'
axclrt_provider_name = 'AXCLRTExecutionProvider'

_NAMES = {'engine': axengine_provider_name, 'axcl': axclrt_provider_name}
_found = [_NAMES[name] for name in _environment.providers()]


def get_all_providers() -> list[str]:
    """List both."""
    return [axengine_provider_name, axclrt_provider_name]


def get_available_providers() -> list[str]:
    """List those that were found at import, the default first."""
    return _found
