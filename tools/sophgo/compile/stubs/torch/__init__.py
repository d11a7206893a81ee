"""Stands in for torch where Sophgo's compiler imports it: it needs the names of the types only.

torch would bring gigabytes of CUDA packages. Everything else here is a name without a life.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import MutableSequence
from typing import Any


class dtype:  # noqa: N801, torch's name
    """An element type; only its identity and its text count."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f'torch.{self.name}'


class Tensor:
    """Nothing is one."""


float16 = dtype('float16')
bfloat16 = dtype('bfloat16')
float32 = dtype('float32')
float8_e4m3fn = dtype('float8_e4m3fn')
float8_e5m2 = dtype('float8_e5m2')
int8 = dtype('int8')
int32 = dtype('int32')
int64 = dtype('int64')
uint8 = dtype('uint8')


class finfo:  # noqa: N801, torch's name
    """The bounds of float32, the only type that is asked for."""

    def __init__(self, _dtype: dtype) -> None:
        self.max = (2 - 2**-23) * 2.0**127
        self.min = -self.max


class _Inert(types.ModuleType):
    """A module of which every capitalised name is an empty class and every other a module."""

    __path__: MutableSequence[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        if name[:1].isupper():
            return type(name, (), {})
        return _module(f'{self.__name__}.{name}')

    def __call__(self, *args: Any, **_: Any) -> Any:
        """Serve as a decorator, with or without arguments."""
        if len(args) == 1 and callable(args[0]):
            return args[0]
        return lambda function: function


def _module(name: str) -> types.ModuleType:
    return sys.modules.setdefault(name, _Inert(name))


def __getattr__(name: str) -> types.ModuleType:
    if name.startswith('__'):
        raise AttributeError(name)
    return _module(f'torch.{name}')


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torch.anything`."""

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.startswith('torch.'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> _Inert:
        return _Inert(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


sys.meta_path.append(_Finder())
