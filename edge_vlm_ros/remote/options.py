"""What may be chosen of the chip `remote`: where the servers are, and what they take."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from edge_vlm_ros.core import Options, count, unsupported

ChoicesBy: TypeAlias = Literal['text', 'grammar', 'structured_outputs', 'regex']

SAMPLING_FIELDS = ('seed', 'top_p', 'top_k', 'repetition_penalty', 'repeat_penalty')
"""Fields of a request that not every server takes."""

_OWN_FIELDS = frozenset(
    {'model', 'messages', 'stream', 'stream_options', 'max_tokens', 'temperature'}
)
_DEFAULT_SAMPLING = 'seed,top_p,top_k'
_TIMES = ('connect_s', 'first_token_s', 'between_s')


@dataclass(frozen=True, slots=True)
class RemoteOptions(Options):
    """What may be chosen.

    Attributes:
        servers: Their addresses, the preferred one first, parted by commas or blanks:
            'https://a:8000/v1'. Without a path, '/v1' is added.
        api_key_env: The environment variable that holds the key; '' = none. Never the key itself:
            options are parameters, which everyone on the graph reads.
        api_key_file: A file whose first line is the key; '' = none.
        ca_file: Certificates (PEM) that servers are verified with, instead of the system's own.
        proxy_from_env: Go through the proxies that the environment names.
        connect_s: A server is left that has taken no connection within so long, seconds.
        first_token_s: A server is left that has said nothing within so long, seconds.
        between_s: An answer is broken that pauses for so long, seconds.
        parallel: Questions that are answered at once.
        max_images: Images in one prompt, those of earlier turns counted.
        max_side: Longer side of an image as it is sent, pixels; larger ones are shrunk.
        max_image_kb: Largest image as it is sent, units of 1000 bytes.
        max_request_kb: Largest request as it is sent, likewise.
        context_tokens: What the model holds, where the server does not say; 0 = not known.
        answer_tokens: Most tokens of an answer, where the question has no bound of its own.
        choices: How an answer becomes one of a question's choices: 'text' = the server answers
            freely and is told them; else it is bound to them, by the field of llama.cpp
            ('grammar'), of vLLM ('structured_outputs') or of SGLang ('regex').
        logprobs: Ask for scores where a question has choices.
        sampling: Fields that the servers take, of `SAMPLING_FIELDS`, parted by commas; a question
            that needs another one is refused.
        trusts_counts: A server that counts fewer tokens than a prompt has words has cut it, and
            its answer is an error; false for servers that count otherwise.
        extra: More fields of the request, a JSON object.
    """

    servers: str = ''
    api_key_env: str = ''
    api_key_file: str = ''
    ca_file: str = ''
    proxy_from_env: bool = False
    connect_s: float = 1.0
    first_token_s: float = 10.0
    between_s: float = 5.0
    parallel: int = count(4, low=1)
    max_images: int = count(8)
    max_side: int = count(1024, low=16)
    max_image_kb: int = count(4_000, low=1)
    max_request_kb: int = count(20_000, low=1)
    context_tokens: int = count()
    answer_tokens: int = count(1024, low=1)
    choices: ChoicesBy = 'text'
    logprobs: bool = True
    sampling: str = _DEFAULT_SAMPLING
    trusts_counts: bool = True
    extra: str = ''

    def __post_init__(self) -> None:
        # Not `super()`: a dataclass with slots is made anew, and the name would mean the old one.
        Options.__post_init__(self)
        for name in _TIMES:
            seconds = getattr(self, name)
            if not (seconds > 0 and math.isfinite(seconds)):
                raise unsupported(f'{name} is a time above 0, in seconds, not {seconds!r}')
        strange = sorted(self.sampling_fields.difference(SAMPLING_FIELDS))
        if strange:
            known = ', '.join(SAMPLING_FIELDS)
            raise unsupported(f'sampling names fields of {known}, not {", ".join(strange)}')
        self.extra_fields()

    @property
    def sampling_fields(self) -> frozenset[str]:
        """The fields that the servers take, of `SAMPLING_FIELDS`."""
        return frozenset(filter(None, self.sampling.replace(',', ' ').split()))

    def extra_fields(self) -> dict[str, Any]:
        """Return the further fields of the request.

        Raises:
            BadRequestError: It is no JSON object, or holds a field that is set here anyway.
        """
        if not self.extra:
            return {}
        try:
            fields = json.loads(self.extra)
        except (ValueError, RecursionError) as error:
            raise unsupported(f'extra is a JSON object, not {self.extra!r}: {error}') from error
        if not isinstance(fields, dict):
            raise unsupported(f'extra is a JSON object, not {self.extra!r}')
        own = sorted(_OWN_FIELDS.intersection(fields))
        if own:
            raise unsupported(f'extra holds {", ".join(own)}, which every request sets by itself')
        return fields
