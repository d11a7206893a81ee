"""Stands in for torch where Sophgo's compiler imports it: it needs the names of the types only.

torch would bring gigabytes of CUDA packages. Everything else here is a name without a life.
"""

import importlib.machinery
import sys
import types


class dtype:  # noqa: N801, torch's name
    """An element type; only its identity and its text count."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
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

    def __init__(self, _dtype):
        self.max = (2 - 2**-23) * 2.0**127
        self.min = -self.max


class _Inert(types.ModuleType):
    """A module of which every capitalised name is an empty class and every other a module."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        if name[:1].isupper():
            return type(name, (), {})
        return _module(f'{self.__name__}.{name}')

    def __call__(self, *args, **_):
        """Serve as a decorator, with or without arguments."""
        if len(args) == 1 and callable(args[0]):
            return args[0]
        return lambda function: function


def _module(name):
    return sys.modules.setdefault(name, _Inert(name))


def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    return _module(f'torch.{name}')


class _Finder:
    """Finds `torch.anything`."""

    def find_spec(self, name, _path=None, _target=None):
        if name.startswith('torch.'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return _Inert(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.append(_Finder())
