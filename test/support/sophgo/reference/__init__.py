"""The float reference of the compiled fixtures: the families in NumPy, written plainly.

Works on the weights that the fixtures were compiled from (`fixtures.Fixture.weights`), for any
prompt: nothing is cached, every call computes the whole sequence. float32 throughout.
"""

from support.sophgo.reference.arithmetic import Array, cosine
from support.sophgo.reference.decoder import Decoder, Image, Trace
from support.sophgo.reference.sampling import SamplingParameters, sampling_head
from support.sophgo.reference.vision import (
    internvl_vision,
    mllama_vision,
    qwen2_5vl_vision,
    qwen2vl_vision,
    qwen3vl_vision,
)

__all__ = [
    'Array',
    'Decoder',
    'Image',
    'SamplingParameters',
    'Trace',
    'cosine',
    'internvl_vision',
    'mllama_vision',
    'qwen2_5vl_vision',
    'qwen2vl_vision',
    'qwen3vl_vision',
    'sampling_head',
]
