"""A stand-in for the `axengine` package (pyaxengine 0.1.3.rc3): same surface, same refusals.

Put `test/support/axera/standin` and the repository's root on sys.path. Models are the files that
`support.axera.sets` writes. What is computed by whom, and what is to fail, is said by environment
variables (see `_environment`). Written from a reading of the package; none of its text.

As in the package, importing prints, starts the chip, and fails where there is none; nothing tells
how many shape groups a model has; one session has one set of buffers, which are never cleared
and never freed.
"""

from axengine._node import NodeArg
from axengine._providers import (
    axclrt_provider_name,
    axengine_provider_name,
    get_all_providers,
    get_available_providers,
)

if not get_available_providers():
    raise ImportError(
        'No providers found. Please make sure you have installed one of the following: '
        f'{get_all_providers()}'
    )
print('[INFO] Available providers: ', get_available_providers())

from axengine._base_session import SessionOptions  # noqa: E402 (after the check, as there)
from axengine._session import InferenceSession  # noqa: E402

__all__ = [
    'InferenceSession',
    'NodeArg',
    'SessionOptions',
    'axclrt_provider_name',
    'axengine_provider_name',
    'get_all_providers',
    'get_available_providers',
]
