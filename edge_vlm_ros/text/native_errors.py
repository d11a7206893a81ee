"""Errors of the tokenizers library, whose Rust code raises bare exceptions, or panics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edge_vlm_ros.core import ModelFileError

# Of pyo3, which exports no class for it; it is a BaseException and no Exception.
_PANIC = 'PanicException'


@contextmanager
def as_damaged(what: str) -> Iterator[None]:
    """Turn whatever goes wrong inside into a `ModelFileError` that begins with `what`.

    Raises:
        ModelFileError: Something went wrong, a panic of native code included.
    """
    try:
        yield
    except ModelFileError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ModelFileError(f'{what}: {error}') from error
    except BaseException as error:
        if type(error).__name__ != _PANIC:
            raise
        raise ModelFileError(f'{what}: {error}') from error
